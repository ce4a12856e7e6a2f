// Shows the API. Whoever is logged in on the page is logged in here too: the token lies in this origin's localStorage.
const ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#api",
  validatorUrl: null,
  tryItOutEnabled: true,
  onComplete: () => {
    const token = localStorage.getItem("auth-token");
    if (token) ui.preauthorizeApiKey("bearer", token);
  },
});
