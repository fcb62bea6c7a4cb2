  // The sort key of an address, the same as kazoo_ips.model.addresses.sort_key; null if the id is no address.
  function sortKey(id) {
    var ipv4 = /^((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(\.(?!$)|$)){4}$/;
    function hex(octets) {
      return octets.split('.').map(function (n) { return ('0' + Number(n).toString(16)).slice(-2); }).join('');
    }
    if (ipv4.test(id)) return '4' + hex(id);
    var last = id.slice(id.lastIndexOf(':') + 1);
    if (ipv4.test(last)) id = id.slice(0, -last.length) + hex(last).replace(/^..../, '$&:');
    var halves = id.toLowerCase().split('::').map(function (half) { return half ? half.split(':') : []; });
    var tail = halves[1] || [];
    var groups = halves[0];
    var missing = 8 - groups.length - tail.length;
    if (halves.length > 2 || (halves.length === 2 ? missing < 1 : missing !== 0)) return null;
    while (groups.length + tail.length < 8) groups.push('0');
    groups = groups.concat(tail);
    if (!groups.every(function (group) { return /^[0-9a-f]{1,4}$/.test(group); })) return null;
    var hexes = groups.map(function (group) { return ('000' + group).slice(-4); }).join('');
    return /^0{20}f{4}/.test(hexes) ? '4' + hexes.slice(24) : '6' + hexes;
  }
