#pragma once

#include <memory>
#include <string>
#include <vector>

#include "liteseg/exported.h"

namespace liteseg {

/// An engine's output: labels (N, H, W) of integers, or scores (N, C, H, W) of floats.
struct Output {
  std::vector<int64_t> shape;
  bool is_float = false;
  std::vector<int32_t> labels;  ///< the values, of integers
  std::vector<float> scores;    ///< the values, of floats

  /// Copies an engine's values. `type` is such as "i32", "i64" or "f32"; others throw Error.
  static Output copy(std::vector<int64_t> shape, const std::string& type, const void* values);
};

/// An engine that holds one model. One thread may use it at a time.
class Engine {
 public:
  Engine() = default;
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  virtual ~Engine() = default;

  /// What the model takes.
  virtual Shape input_shape() const = 0;
  /// Passes images to the engine; `values` must live until compute() returns.
  virtual void feed(float* values, const Shape& shape) = 0;
  /// Runs the model, and waits for the result.
  virtual void compute() = 0;
  virtual Output fetch() = 0;
};

struct EngineOptions {
  std::string runtime;  ///< one of runtimes()
  std::string precision = "fp32";
  int threads = 1;
};

/// CPUs that this process may use.
int usable_cpus();

/// The engines that this program was built with; the first is the default.
const std::vector<std::string>& runtimes();

/// Loads a model. Throws Error for what the engine does not have, or cannot load.
std::unique_ptr<Engine> create_engine(const ExportedModel& exported, const EngineOptions& options);

/// The ONNX file for a precision. Throws Error without one.
const std::filesystem::path& onnx_file(const ExportedModel& exported, const std::string& precision);

std::unique_ptr<Engine> create_openvino(const ExportedModel&, const EngineOptions&);
std::unique_ptr<Engine> create_onnxruntime(const ExportedModel&, const EngineOptions&);
std::unique_ptr<Engine> create_paddle(const ExportedModel&, const EngineOptions&);

}  // namespace liteseg
