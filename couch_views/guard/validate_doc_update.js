// Refuses what no address may become, whoever writes it: (new document, old document or null)
(function (doc, old) {
  // Kazoo checks no more than this when it adds an address; `%` and a zone id may follow IPv6.
  function isAddress(id) {
    var ipv4 = /^((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(\.(?!$)|$)){4}$/;
    if (ipv4.test(id)) return true;
    id = id.replace(/%.+$/, '');
    var last = id.slice(id.lastIndexOf(':') + 1);
    if (ipv4.test(last)) id = id.slice(0, -last.length) + '0:0';
    var halves = id.split('::').map(function (half) { return half ? half.split(':') : []; });
    var groups = halves[0].concat(halves[1] || []);
    if (halves.length > 2 || (halves.length === 2 ? groups.length > 7 : groups.length !== 8)) return false;
    return groups.every(function (group) { return /^[0-9a-fA-F]{1,4}$/.test(group); });
  }
  function refuse(why) { throw({forbidden: doc._id + ': ' + why}); }

  // A deletion says no more than its revision, Kazoo's no more than anybody else's.
  if (doc._deleted) return;
  // What everybody withdrew from comes back as it was; any other deleted document is begun anew.
  var was = old && old._deleted ? (old.pvt_withdrawn || {}).document : old;
  if (!was || was.pvt_type !== 'dedicated_ip') was = null;
  if (doc.pvt_type !== 'dedicated_ip') {
    if (was) refuse('pvt_type is dedicated_ip and stays so');
    return;
  }
  // What was wrong before can still be written, as long as it does not change.
  function isAsBefore(field) {
    return was !== null && JSON.stringify(was[field] || '') === JSON.stringify(doc[field] || '');
  }
  var owner = doc.pvt_assigned_to;

  if (was === null && !isAddress(doc._id)) refuse('the id is not an address');
  if (!(isAsBefore('pvt_status') && isAsBefore('pvt_assigned_to'))) {
    // Another release may know more of them than available and assigned.
    if (typeof doc.pvt_status !== 'string' || !/^[a-z][a-z_]{0,31}$/.test(doc.pvt_status)) {
      refuse('pvt_status is a word in lower case');
    }
    var isAccount = typeof owner === 'string' && /^[0-9a-f]{32}$/.test(owner);
    if (doc.pvt_status === 'available' && owner) refuse('available, so it has no pvt_assigned_to');
    if (doc.pvt_status === 'assigned' && !isAccount) {
      refuse('assigned, so pvt_assigned_to is the id of an account');
    }
    if (owner && !isAccount) refuse('pvt_assigned_to is the id of an account');
    if (was !== null && was.pvt_status === 'assigned' && was.pvt_assigned_to && owner && owner !== was.pvt_assigned_to) {
      refuse('it is another account\'s and has to be released first');
    }
  }
  ['pvt_zone', 'pvt_host'].forEach(function (field) {
    if (!isAsBefore(field) && (typeof doc[field] !== 'string' || doc[field] === '')) {
      refuse(field + ' is a text');
    }
  });
  if (was !== null && was.pvt_created && !isAsBefore('pvt_created')) refuse('pvt_created stays as it is');
  ['pvt_created', 'pvt_modified'].forEach(function (field) {
    if (!isAsBefore(field) && (typeof doc[field] !== 'number' || doc[field] % 1 !== 0)) {
      refuse(field + ' is a time in Gregorian seconds');
    }
  });
});
