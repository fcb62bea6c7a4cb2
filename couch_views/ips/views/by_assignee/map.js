// Assigned addresses by account: [account, zone, sort key] -> host
(function (doc) {
  // !code lib/sort_key.js
  if (doc.pvt_type !== 'dedicated_ip' || doc.pvt_deleted) return;
  if (doc.pvt_status !== 'assigned' || !doc.pvt_assigned_to) return;
  var key = sortKey(doc._id);
  if (key === null) return;
  emit([doc.pvt_assigned_to, doc.pvt_zone, key], doc.pvt_host);
});
