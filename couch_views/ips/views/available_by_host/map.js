// Available addresses by zone and host: [zone, number of the host, host, sort key] -> null
(function (doc) {
  // !code lib/sort_key.js
  if (doc.pvt_type !== 'dedicated_ip' || doc.pvt_deleted || doc.pvt_status !== 'available') return;
  var key = sortKey(doc._id);
  if (key === null) return;
  // The numbers shuffle the hosts: those that follow a random number are random hosts.
  var name = String(doc.pvt_host);
  var number = 0;
  for (var i = 0; i < name.length; i += 1) number = (number + name.charCodeAt(i)) * 25173 % 65536;
  emit([doc.pvt_zone, number, doc.pvt_host, key], null);
});
