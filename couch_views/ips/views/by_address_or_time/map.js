// All addresses by address and by time: ["address", sort key], ["modified", Gregorian seconds] -> [status, zone, host, account if assigned, Gregorian seconds]
(function (doc) {
  // !code lib/sort_key.js
  if (doc.pvt_type !== 'dedicated_ip' || doc.pvt_deleted) return;
  var key = sortKey(doc._id);
  if (key === null) return;
  var modified = typeof doc.pvt_modified === 'number' ? doc.pvt_modified : 0;
  var account = doc.pvt_status === 'assigned' ? doc.pvt_assigned_to : null;
  var line = [doc.pvt_status, doc.pvt_zone, doc.pvt_host, account, modified];
  emit(['address', key], line);
  emit(['modified', modified], line);
});
