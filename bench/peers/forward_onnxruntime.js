// ONNX BATCH CHANNELS HEIGHT WIDTH: passes of a net by ONNX Runtime on one thread.
// Answers each line N with "WALL CPU", milliseconds a pass of N.
const readline = require("readline");
const runtime = require("onnxruntime-node");

async function main() {
  const [path, ...dims] = process.argv.slice(2);
  const shape = dims.map(Number);
  const count = shape.reduce((a, b) => a * b, 1);
  const session = await runtime.InferenceSession.create(path, {
    intraOpNumThreads: 1, interOpNumThreads: 1, executionMode: "sequential",
    graphOptimizationLevel: "all", logSeverityLevel: 3 });
  const data = Float32Array.from({ length: count }, (_, i) => (i % 251) / 251);
  const feeds = { [session.inputNames[0]]: new runtime.Tensor("float32", data, shape) };
  await session.run(feeds);
  console.log("ready");
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const times = Number(line);
    const wall = process.hrtime.bigint(), cpu = process.cpuUsage();
    for (let i = 0; i < times; i++) await session.run(feeds);
    const used = process.cpuUsage(cpu);
    console.log(Number(process.hrtime.bigint() - wall) / 1e6 / times,
                (used.user + used.system) / 1e3 / times);
  }
}

main();
