// Refuses invalid documents of addresses, whichever client writes them: (new document, old document or null)
(function (doc, old) {
  // Kazoo checks the same when it adds an address; `%` and a zone id may follow an IPv6 address.
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

  // A deletion has no fields to check. Kazoo deletes assigned addresses too.
  if (doc._deleted) return;
  // A withdrawn document is restored as it was; any other deleted document starts afresh.
  var was = old && old._deleted ? (old.pvt_withdrawn || {}).document : old;
  if (!was || was.pvt_type !== 'dedicated_ip') was = null;
  if (doc.pvt_type !== 'dedicated_ip') {
    if (was) refuse('pvt_type must stay dedicated_ip');
    return;
  }
  // A field that was invalid before can still be written, if it does not change.
  function isAsBefore(field) {
    return was !== null && JSON.stringify(was[field] || '') === JSON.stringify(doc[field] || '');
  }
  var owner = doc.pvt_assigned_to;

  if (was === null && !isAddress(doc._id)) refuse('the id is not an address');
  if (!(isAsBefore('pvt_status') && isAsBefore('pvt_assigned_to'))) {
    // A newer release may have more statuses than available and assigned.
    if (typeof doc.pvt_status !== 'string' || !/^[a-z][a-z_]{0,31}$/.test(doc.pvt_status)) {
      refuse('pvt_status must be a word in lower case');
    }
    var isAccount = typeof owner === 'string' && /^[0-9a-f]{32}$/.test(owner);
    if (doc.pvt_status === 'available' && owner) refuse('an available address must not have pvt_assigned_to');
    if (doc.pvt_status === 'assigned' && !isAccount) {
      refuse('an assigned address needs the id of an account in pvt_assigned_to');
    }
    if (owner && !isAccount) refuse('pvt_assigned_to must be the id of an account');
    if (was !== null && was.pvt_status === 'assigned' && was.pvt_assigned_to && owner && owner !== was.pvt_assigned_to) {
      refuse('it is assigned to another account, and must be released first');
    }
  }
  ['pvt_zone', 'pvt_host'].forEach(function (field) {
    if (!isAsBefore(field) && (typeof doc[field] !== 'string' || doc[field] === '')) {
      refuse(field + ' must be a text');
    }
  });
  if (was !== null && was.pvt_created && !isAsBefore('pvt_created')) refuse('pvt_created must not change');
  ['pvt_created', 'pvt_modified'].forEach(function (field) {
    if (!isAsBefore(field) && (typeof doc[field] !== 'number' || doc[field] % 1 !== 0)) {
      refuse(field + ' must be a time in Gregorian seconds');
    }
  });
});
