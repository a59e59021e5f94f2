// @ts-check
/** The calls of the API, drawn from its own OpenAPI description; nothing is loaded from elsewhere. */

import { byId, make } from "./dom.js";

const METHODS = ["get", "post", "put", "patch", "delete"];

/** @typedef {{ $ref?: string, type?: string, enum?: unknown[], anyOf?: Schema[], properties?: Record<string, Schema>, description?: string, pattern?: string, minimum?: number, maximum?: number, title?: string }} Schema */

/** @param {Record<string, any>} api @param {Schema} schema @returns {Schema} */
function resolved(api, schema) {
  const name = schema.$ref?.split("/").pop();
  return name ? (api.components?.schemas?.[name] ?? schema) : schema;
}

/** What a value may be, in words. @param {Record<string, any>} api @param {Schema} given @returns {string} */
function described(api, given) {
  const schema = resolved(api, given);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.anyOf) return schema.anyOf.map((option) => described(api, option)).join(" | ");
  const range = [schema.minimum, schema.maximum].some((bound) => bound !== undefined)
    ? ` ${schema.minimum ?? ""} to ${schema.maximum ?? ""}`
    : "";
  return `${schema.type ?? schema.title ?? "any"}${range}${schema.pattern ? ` ${schema.pattern}` : ""}`;
}

/** @param {[string, string][]} rows */
function table(rows) {
  return make("table", {}, [
    make("tbody", {}, rows.map((row) => make("tr", {}, row.map((text) => make("td", {}, [text]))))),
  ]);
}

/** @param {Record<string, any>} api @param {string} path @param {string} method @param {any} call */
function callElement(api, path, method, call) {
  const rows = /** @type {[string, string][]} */ (
    (call.parameters ?? []).map((/** @type {any} */ parameter) => [
      `${parameter.name} (${parameter.in})`,
      [described(api, parameter.schema ?? {}), parameter.description].filter(Boolean).join(": "),
    ])
  );
  const body = call.requestBody?.content?.["application/json"]?.schema;
  const fields = body ? (resolved(api, body).properties ?? {}) : {};
  for (const [name, schema] of Object.entries(fields)) rows.push([`${name} (body)`, described(api, schema)]);
  for (const [status, response] of Object.entries(call.responses ?? {})) {
    rows.push([status, /** @type {any} */ (response).description ?? ""]);
  }
  const title = make("summary", {}, [
    make("span", { className: "method" }, [method.toUpperCase()]),
    make("span", { className: "path" }, [path]),
    make("span", { className: "about" }, [call.summary ?? ""]),
  ]);
  const text = make("p", {}, [call.description ?? ""]);
  return make("details", { className: "call" }, [
    title,
    make("div", { className: "body" }, [text, table(rows)]),
  ]);
}

/** @param {Record<string, any>} api */
function draw(api) {
  /** @type {Map<string, HTMLElement[]>} */
  const groups = new Map();
  for (const [path, calls] of Object.entries(api.paths)) {
    for (const method of METHODS) {
      const call = /** @type {any} */ (calls)[method];
      if (!call) continue;
      const tag = call.tags?.[0] ?? "other";
      groups.set(tag, [...(groups.get(tag) ?? []), callElement(api, path, method, call)]);
    }
  }
  const about = make("p", {}, [`${api.info.description ?? ""} Version ${api.info.version}.`]);
  const sections = [...groups].flatMap(([tag, calls]) => [make("h2", {}, [tag]), ...calls]);
  byId("calls", HTMLElement).replaceChildren(about, ...sections);
}

try {
  const answer = await fetch("openapi.json");
  if (!answer.ok) throw new Error(`openapi.json: ${answer.status}`);
  draw(await answer.json());
} catch (error) {
  byId("calls", HTMLElement).replaceChildren(make("p", {}, [`The description cannot be read: ${error}`]));
}
