// Requests to the server. Every failure is an ApiError with the server's words.

export class ApiError extends Error {
  constructor(status, content) {
    super(content.error ?? `the server answered ${status}`);
    this.status = status;
    this.content = content;
  }
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", cache: "no-store", ...options });
  } catch {
    throw new ApiError(0, { error: "the server does not answer: is `nephila review` still running?" });
  }
  if (!response.ok) {
    const text = await response.text();
    let content;
    try {
      content = JSON.parse(text);
    } catch {
      content = { error: text.slice(0, 300) };
    }
    throw new ApiError(response.status, content);
  }
  return response;
}

export const getJson = async (path) => (await request(path)).json();
export const getText = async (path) => (await request(path)).text();
export const getBytes = async (path) => (await request(path)).arrayBuffer();

export async function post(path, content) {
  const options = {
    method: "POST",
    headers: { "content-type": "application/json", "x-nephila": "review" },
    body: JSON.stringify(content),
  };
  return (await request(path, options)).json();
}
