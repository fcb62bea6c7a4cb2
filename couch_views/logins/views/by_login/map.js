// Accounts by what users enter at login: ["name" | "realm" | "api_key", value] -> null
(function (doc) {
  if (doc.pvt_type !== 'account' || doc.pvt_deleted) return;
  if (doc.name) emit(['name', doc.name.toLowerCase().replace(/[^a-z0-9]/g, '')], null);
  if (doc.realm) emit(['realm', doc.realm.toLowerCase()], null);
  if (doc.pvt_api_key) emit(['api_key', doc.pvt_api_key], null);
});
