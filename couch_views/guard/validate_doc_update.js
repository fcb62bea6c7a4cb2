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
  // Whether the service has transferred the address from an account, or has undone such a transfer.
  function isTransfer(from) {
    var last = (Array.isArray(doc.pvt_trail) ? doc.pvt_trail : []).filter(function (event) {
      return event && event.event !== 'found' && event.event !== 'withdrawn';
    }).pop() || {};
    if (last.event === 'transferred') return last.account_id === owner && (last.origin || {}).account_id === from;
    return last.event === 'undone' && last.was === 'transferred' && last.account_id === from;
  }
  // Whether the fields of a rest or of a reservation permit an account to have the address. The service clears them.
  function isFreeFor(account) {
    var now = Date.now() / 1000 + 62167219200 + 60; // the clock of the service may be ahead
    if (was.pvt_status === 'reserved') return was.pvt_reserved_for === account || !(was.pvt_reserved_until > now);
    return was.pvt_last_assigned_to === account || !(was.pvt_available_at > now);
  }
  // Each state needs its own fields.
  function requireMarks() {
    function isTime(value) { return typeof value === 'number' && value % 1 === 0; }
    function isText(value) { return typeof value === 'string' && value !== ''; }
    if (doc.pvt_status === 'aging' && !isTime(doc.pvt_available_at)) {
      refuse('an aging address needs a time in Gregorian seconds in pvt_available_at');
    }
    if (doc.pvt_status === 'reserved' && !(
      /^[0-9a-f]{32}$/.test(doc.pvt_reserved_for) && isTime(doc.pvt_reserved_until) && isText(doc.pvt_reservation)
    )) {
      refuse('a reserved address needs pvt_reserved_for, pvt_reserved_until and pvt_reservation');
    }
    if (doc.pvt_status === 'disabled' && !(doc.pvt_disabled && isText(doc.pvt_disabled.reason))) {
      refuse('a disabled address needs a reason in pvt_disabled');
    }
  }

  if (was === null) {
    var octets = octetsOf(doc._id);
    if (octets === null) refuse('the id is not an address');
    if (unusable(octets)) refuse('no proxy can have ' + unusable(octets));
  }
  if (!(isAsBefore('pvt_status') && isAsBefore('pvt_assigned_to'))) {
    // A newer release may have more statuses.
    if (typeof doc.pvt_status !== 'string' || !/^[a-z][a-z_]{0,31}$/.test(doc.pvt_status)) {
      refuse('pvt_status must be a word in lower case');
    }
    var isAccount = typeof owner === 'string' && /^[0-9a-f]{32}$/.test(owner);
    if (/^(available|aging|reserved|disabled)$/.test(doc.pvt_status) && owner) {
      refuse('pvt_assigned_to is only for an assigned address');
    }
    if (doc.pvt_status === 'assigned' && !isAccount) {
      refuse('an assigned address needs the id of an account in pvt_assigned_to');
    }
    if (owner && !isAccount) refuse('pvt_assigned_to must be the id of an account');
    if (was !== null && was.pvt_status === 'assigned' && was.pvt_assigned_to && owner && owner !== was.pvt_assigned_to) {
      if (!isTransfer(was.pvt_assigned_to)) refuse('it is assigned to another account, and must be released first');
    }
    // As in kazoo_ips.model.lifecycle. Kazoo's release, from any status to available, passes.
    if (was !== null && !isAsBefore('pvt_status')) {
      if (was.pvt_status === 'disabled' && /^(assigned|reserved)$/.test(doc.pvt_status)) {
        refuse('it is disabled, and must be enabled first');
      }
      if (was.pvt_status === 'assigned' && doc.pvt_status === 'reserved') {
        refuse('it is assigned, and must be released first');
      }
      if (was.pvt_status === 'reserved' && doc.pvt_status === 'assigned' && !isFreeFor(owner)) {
        refuse('it is reserved for another account');
      }
      if (was.pvt_status === 'aging' && doc.pvt_status === 'assigned' && !isFreeFor(owner)) {
        refuse('it is resting');
      }
    }
    requireMarks();
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
