// The whole pool by host: [host, status, zone, order of the address] -> account if assigned, else null
(function (doc) {
  // The address in numeric order, IPv4 before IPv6, as kazoo_ips.addresses.sort_key has it.
  function order(id) {
    function hex(n, width) {
      return ('0000000' + Number(n).toString(16)).slice(-width);
    }
    if (/^((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(\.(?!$)|$)){4}$/.test(id)) {
      return '4' + id.split('.').map(function (n) { return hex(n, 2); }).join('');
    }
    if (!/^[0-9a-f:.]+$/i.test(id) || id.indexOf(':') < 0) return null;
    var halves = id.toLowerCase().replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, function (all, a, b, c, d) {
      return hex(a * 256 + Number(b), 4) + ':' + hex(c * 256 + Number(d), 4);
    }).split('::').map(function (half) { return half ? half.split(':') : []; });
    var tail = halves[1] || [];
    var groups = halves[0];
    while (groups.length + tail.length < 8) groups.push('0');
    return '6' + groups.concat(tail).map(function (group) { return ('000' + group).slice(-4); }).join('');
  }
  if (doc.pvt_type !== 'dedicated_ip' || doc.pvt_deleted) return;
  var key = order(doc._id);
  if (key === null) return;
  var assigned = doc.pvt_status === 'assigned';
  emit([doc.pvt_host, doc.pvt_status, doc.pvt_zone, key], assigned ? doc.pvt_assigned_to : null);
});
