// This script is a file of its own, because the page's policy permits no script inside it.
SwaggerUIBundle({
  url: "/v2/openapi.json",
  dom_id: "#description",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  persistAuthorization: true, // in the browser's local storage, until "Logout"
  tryItOutEnabled: true,
  validatorUrl: null,
});
