// Refuses invalid documents of addresses, whichever client writes them: (new document, old document or null)
(function (doc, old) {
  // The 4 or 16 octets of an address; null if the id is no address. Kazoo checks the same when it adds one:
  // `%` and a zone id may follow an IPv6 address. An IPv4-mapped IPv6 address is the IPv4 address.
  function octetsOf(id) {
    var ipv4 = /^((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(\.(?!$)|$)){4}$/;
    if (ipv4.test(id)) return id.split('.').map(Number);
    id = id.replace(/%.+$/, '');
    var last = id.slice(id.lastIndexOf(':') + 1);
    if (ipv4.test(last)) {
      var four = last.split('.').map(Number);
      id = id.slice(0, -last.length) + [four[0] * 256 + four[1], four[2] * 256 + four[3]].map(hex).join(':');
    }
    var halves = id.split('::').map(function (half) { return half ? half.split(':') : []; });
    var groups = halves[0], tail = halves[1] || [];
    var missing = 8 - groups.length - tail.length;
    if (halves.length > 2 || (halves.length === 2 ? missing < 1 : missing !== 0)) return null;
    while (groups.length + tail.length < 8) groups.push('0');
    groups = groups.concat(tail);
    if (!groups.every(function (group) { return /^[0-9a-fA-F]{1,4}$/.test(group); })) return null;
    var octets = [];
    groups.forEach(function (group) {
      var number = parseInt(group, 16);
      octets.push(number >> 8, number & 255);
    });
    return /^(0,){10}255,255,/.test(octets.join() + ',') ? octets.slice(12) : octets;
  }
  function hex(number) { return number.toString(16); }
  // Why no proxy can have an address, as in kazoo_ips.model.addresses.unusable; empty if one can.
  function unusable(octets) {
    var first = octets[0], second = octets[1];
    if (octets.length === 4) {
      if (first === 0) return 'an unspecified address';
      if (first === 127) return 'a loopback address';
      if (first === 169 && second === 254) return 'a link-local address';
      if (first >= 224 && first < 240) return 'a multicast address';
      if (octets.join() === '255,255,255,255') return 'the broadcast address';
      return first >= 240 ? 'a reserved address' : '';
    }
    if (/^(0,){12}/.test(octets.join())) {
      var rest = octets.slice(12).join();
      if (rest === '0,0,0,0') return 'an unspecified address';
      return rest === '0,0,0,1' ? 'a loopback address' : 'an IPv4-compatible address';
    }
    if (first === 254 && (second & 192) === 128) return 'a link-local address';
    return first === 255 ? 'a multicast address' : '';
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

  if (was === null) {
    var octets = octetsOf(doc._id);
    if (octets === null) refuse('the id is not an address');
    if (unusable(octets)) refuse('no proxy can have ' + unusable(octets));
  }
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
