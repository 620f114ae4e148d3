// What each client's script is made of: checks by name, each told as one line of JSON.
export const { CLIENT_URL: URL, CLIENT_KEY: KEY, CLIENT_MODEL: MODEL } = process.env;
export const HELLO = [{ role: "user", content: "Hello" }];
export const WEATHER = {
  type: "object",
  properties: { city: { type: "string", enum: ["Rome", "Oslo"] } },
  required: ["city"],
  additionalProperties: false,
};

export function holds(value, what = "it does not hold") {
  if (!value) throw new Error(what);
}

export async function refused(status, call) {
  try {
    await call();
  } catch (error) {
    holds((error.status ?? error.statusCode) === status, `${error.status ?? error.statusCode}: ${error}`);
    return error;
  }
  throw new Error(`no ${status}`);
}

export async function run(checks) {
  for (const [check, call] of Object.entries(checks)) {
    let error = "";
    try {
      await call();
    } catch (raised) {
      console.error(raised);
      error = String(raised).slice(0, 600) || "it failed";
    }
    console.log(JSON.stringify({ check, ok: !error, error }));
  }
}
