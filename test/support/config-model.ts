import { type ConfigProblem, writeProblem } from "../../modules/config-section.ts";
import type { Model } from "../../modules/model.ts";
import { parseModel } from "../../modules/parse-model.ts";
import { parseConfigText } from "../../node/config/config-directory.ts";

/**
 * A model as the configuration makes it, from `{type: {attr: "kind data_type"}}`; what stands after `; ` is YAML that the
 * attribute has besides. `#` holds YAML that the entity has besides.
 */
export function configModel(types: Readonly<Record<string, Readonly<Record<string, string>>>>): Model {
  const problems: ConfigProblem[] = [];
  const files = Object.entries(types).flatMap(([id, { "#": more, ...attribs }]) => {
    const lines = Object.entries(attribs).map(([attr, text]) => `  ${attr}: ${attributeYaml(attr, text)}`);
    const snapshot = more?.includes("snapshot:") ? "" : ", snapshot: yes";
    const head = `entity: {id: ${id}, name: ${id}${snapshot}${more === undefined ? "" : `, ${more}`}}`;
    const text = `${head}\nattribs:${lines.length === 0 ? " {}" : ""}\n${lines.join("\n")}\n`;
    return parseConfigText(`db_entities/${id}.yml`, text, problems) ?? [];
  });
  const model = parseModel(files, problems);
  if (problems.length > 0) throw new Error(problems.map(writeProblem).join("\n"));
  return model;
}

function attributeYaml(attr: string, text: string): string {
  const [, kind = "", dataType = "", more] = /^(\w+) ?(.*?)(?:; (\w.*: .*))?$/.exec(text) ?? [];
  if (kind === "timeseries") {
    return `{type: timeseries, name: ${attr}, timeseries_type: irregular, timeseries_params: {}, series: {n: {data_type: int}}}`;
  }
  return `{type: ${kind}, name: ${attr}, data_type: "${dataType}"${more === undefined ? "" : `, ${more}`}}`;
}
