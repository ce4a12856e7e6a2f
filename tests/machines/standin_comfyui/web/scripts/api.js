// As ComfyUI's scripts/api.js: how its page, and the scripts of nodes, speak with its server.

class Api extends EventTarget {
  fetchApi(path, options) {
    return fetch(`/api${path}`, options);
  }
}

export const api = new Api();
