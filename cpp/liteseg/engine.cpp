#include "liteseg/engine.h"

#include <sched.h>

#include <algorithm>

#include "liteseg/error.h"

namespace liteseg {
namespace {

struct Runtime {
  const char* name;
  std::vector<std::string> precisions;
  std::unique_ptr<Engine> (*create)(const ExportedModel&, const EngineOptions&);
};

const std::vector<Runtime>& built_in() {
  static const std::vector<Runtime> all = {
#ifdef LITESEG_WITH_PADDLE
      {"paddle", {"fp32", "bf16"}, create_paddle},
#endif
#ifdef LITESEG_WITH_OPENVINO
      {"openvino", {"fp32", "bf16", "int8"}, create_openvino},
#endif
#ifdef LITESEG_WITH_ONNXRUNTIME
      {"onnxruntime", {"fp32", "int8"}, create_onnxruntime},
#endif
  };
  return all;
}

std::string listed(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) {
    text += (text.empty() ? "" : ", ") + name;
  }
  return text;
}

}  // namespace

Output Output::copy(std::vector<int64_t> shape, const std::string& type, const void* values) {
  Output output;
  size_t count = 1;
  for (const int64_t n : shape) {
    count *= static_cast<size_t>(n);
  }
  output.shape = std::move(shape);
  const auto take = [&](const auto* from, auto& to) { to.assign(from, from + count); };
  if (type == "f32") {
    output.is_float = true;
    take(static_cast<const float*>(values), output.scores);
  } else if (type == "i32") {
    take(static_cast<const int32_t*>(values), output.labels);
  } else if (type == "i64") {
    take(static_cast<const int64_t*>(values), output.labels);
  } else {
    throw Error("the model gives values of type " + type + "; this program takes i32, i64 and f32");
  }
  return output;
}

int usable_cpus() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

const std::vector<std::string>& runtimes() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const Runtime& runtime : built_in()) {
      all.emplace_back(runtime.name);
    }
    return all;
  }();
  return names;
}

std::unique_ptr<Engine> create_engine(const ExportedModel& exported, const EngineOptions& options) {
  for (const Runtime& runtime : built_in()) {
    if (runtime.name != options.runtime) {
      continue;
    }
    const auto& known = runtime.precisions;
    if (std::find(known.begin(), known.end(), options.precision) == known.end()) {
      throw Error(options.runtime + " does not compute in '" + printable(options.precision) +
                  "'; choose one of " + listed(known));
    }
    auto engine = runtime.create(exported, options);
    const Shape taken = engine->input_shape();
    for (size_t i = 0; i < taken.size(); ++i) {
      const int64_t said = exported.input_shape[i];
      if (said != kOpen && taken[i] != kOpen && said != taken[i]) {
        throw Error("deploy.yaml says input_shape " + written_shape(exported.input_shape) +
                    ", the model in " + printable(exported.folder.string()) + " takes " +
                    written_shape(taken) + "; export again");
      }
    }
    return engine;
  }
  throw Error("this program was built without the runtime '" + printable(options.runtime) +
              "'; it has " + listed(runtimes()));
}

const std::filesystem::path& onnx_file(const ExportedModel& exported,
                                       const std::string& precision) {
  const bool is_int8 = precision == "int8";
  const std::string folder = printable(exported.folder.string());
  if (exported.onnx.empty()) {
    throw Error(folder + " has no ONNX file; export with --format onnx");
  }
  if (is_int8 && exported.onnx_int8.empty()) {
    throw Error(folder + " has no INT8 model; create it with liteseg quantize " + folder);
  }
  return is_int8 ? exported.onnx_int8 : exported.onnx;
}

}  // namespace liteseg
