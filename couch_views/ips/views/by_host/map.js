// All addresses by host: [host, status, zone, sort key] -> account if assigned, else null
(function (doc) {
  // !code lib/sort_key.js
  if (doc.pvt_type !== 'dedicated_ip' || doc.pvt_deleted) return;
  var key = sortKey(doc._id);
  if (key === null) return;
  var assigned = doc.pvt_status === 'assigned';
  emit([doc.pvt_host, doc.pvt_status, doc.pvt_zone, key], assigned ? doc.pvt_assigned_to : null);
});
