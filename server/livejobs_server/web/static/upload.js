// @ts-check
/** Sending files, and seeing how much of them has been sent; `fetch` does not tell. */

/**
 * @typedef {object} AcceptedFile
 * @property {string} job_id
 * @property {string} name
 */

/**
 * Send files to be ingested.
 *
 * @param {string} url
 * @param {File[]} files
 * @param {(done: number) => void} progressed Called with how much has been sent, from 0 to 1.
 * @returns {Promise<AcceptedFile[]>} A job for each.
 * @throws {Error} The server refused, or is not there; the message is for people.
 */
export function upload(url, files, progressed) {
  const body = new FormData();
  for (const file of files) body.append("files", file);
  const request = new XMLHttpRequest();
  request.open("POST", url);
  request.setRequestHeader("Idempotency-Key", newKey());
  request.responseType = "json";
  request.upload.addEventListener("progress", (event) => {
    if (event.lengthComputable) progressed(event.loaded / event.total);
  });
  return new Promise((resolve, reject) => {
    request.addEventListener("load", () => {
      if (request.status === 202) resolve(request.response.jobs);
      else reject(new Error(request.response?.detail ?? `The server answered ${request.status}.`));
    });
    request.addEventListener("error", () => {
      reject(new Error("The files could not be sent: the server does not answer."));
    });
    request.send(body);
  });
}

/** A key that nobody else has; `randomUUID` is for secure origins only. */
function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].join(".");
}
