// Addresses that rest or are reserved, by the end of that: [status, "all", Gregorian seconds], [status, "zone", zone, Gregorian seconds], [status, "host", host, Gregorian seconds] -> [zone, host]
(function (doc) {
  // !code lib/sort_key.js
  if (doc.pvt_type !== 'dedicated_ip' || doc.pvt_deleted) return;
  if (sortKey(doc._id) === null) return;
  var status = doc.pvt_status;
  if (status !== 'aging' && status !== 'reserved') return;
  var end = status === 'aging' ? doc.pvt_available_at : doc.pvt_reserved_until;
  var time = typeof end === 'number' ? end : 0;
  var place = [doc.pvt_zone, doc.pvt_host];
  emit([status, 'all', time], place);
  emit([status, 'zone', doc.pvt_zone, time], place);
  emit([status, 'host', doc.pvt_host, time], place);
});
