export default {
  input: "../../../openapi/openapi.json",
  output: { path: "generated/bridge", importFileExtension: ".js" },
  plugins: ["@hey-api/client-fetch", "@hey-api/typescript", "@hey-api/sdk"],
};
