// Addresses by label: ["key:value", zone, sort key] -> [status, host, account if assigned, else null]
(function (doc) {
  // !code lib/sort_key.js
  if (doc.pvt_type !== 'dedicated_ip' || doc.pvt_deleted) return;
  var key = sortKey(doc._id);
  if (key === null) return;
  var assigned = doc.pvt_status === 'assigned';
  var line = [doc.pvt_status, doc.pvt_host, assigned ? doc.pvt_assigned_to : null];
  var labels = doc.labels;
  if (typeof labels !== 'object' || labels === null || Array.isArray(labels)) return;
  Object.keys(labels).forEach(function (name) {
    if (typeof labels[name] === 'string') emit([name + ':' + labels[name], doc.pvt_zone, key], line);
  });
});
