// All addresses by status and zone: [status, zone, sort key] -> [host, account if assigned]
(function (doc) {
  // !code lib/sort_key.js
  if (doc.pvt_type !== 'dedicated_ip' || doc.pvt_deleted) return;
  var key = sortKey(doc._id);
  if (key === null) return;
  var assigned = doc.pvt_status === 'assigned';
  emit([doc.pvt_status, doc.pvt_zone, key], assigned ? [doc.pvt_host, doc.pvt_assigned_to] : [doc.pvt_host]);
});
