#include <onnxruntime_cxx_api.h>

#include "liteseg/engine.h"
#include "liteseg/error.h"

namespace liteseg {
namespace {

/// Sets what liteseg_plugin/runtimes/onnxruntime.py sets.
class OnnxRuntime : public Engine {
 public:
  OnnxRuntime(const ExportedModel& exported, const EngineOptions& options) {
    const std::string path = onnx_file(exported, options.precision).string();
    Ort::SessionOptions settings;
    settings.SetIntraOpNumThreads(options.threads);
    settings.SetLogSeverityLevel(ORT_LOGGING_LEVEL_ERROR);
    try {
      session_ = Ort::Session(environment_, path.c_str(), settings);
    } catch (const Ort::Exception& error) {
      throw Error("ONNX Runtime cannot load " + printable(path) + ": " + last_line(error.what()));
    }
    input_ = session_.GetInputNameAllocated(0, allocator_).get();
    output_ = session_.GetOutputNameAllocated(0, allocator_).get();
  }

  Shape input_shape() const override {
    const auto extents = session_.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();
    Shape shape{kOpen, kOpen, kOpen, kOpen};
    if (extents.size() != shape.size()) {
      throw Error("the ONNX file does not take N, C, H, W");
    }
    std::copy(extents.begin(), extents.end(), shape.begin());  // -1 is open here, too
    return shape;
  }

  void feed(float* values, const Shape& shape) override {
    const auto count = static_cast<size_t>(shape[0] * shape[1] * shape[2] * shape[3]);
    fed_ = Ort::Value::CreateTensor<float>(memory_, values, count, shape.data(), shape.size());
  }

  void compute() override {
    const char* inputs[] = {input_.c_str()};
    const char* outputs[] = {output_.c_str()};
    results_ = session_.Run(Ort::RunOptions(), inputs, &fed_, 1, outputs, 1);
  }

  Output fetch() override {
    const auto info = results_[0].GetTensorTypeAndShapeInfo();
    const auto type = info.GetElementType();
    const char* name = type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT   ? "f32"
                       : type == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32 ? "i32"
                       : type == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 ? "i64"
                                                                     : "unknown";
    return Output::copy(info.GetShape(), name, results_[0].GetTensorData<void>());
  }

 private:
  Ort::Env environment_{ORT_LOGGING_LEVEL_ERROR, "liteseg"};
  Ort::AllocatorWithDefaultOptions allocator_;
  Ort::MemoryInfo memory_ = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  Ort::Session session_{nullptr};
  std::string input_, output_;
  Ort::Value fed_{nullptr};
  std::vector<Ort::Value> results_;
};

}  // namespace

std::unique_ptr<Engine> create_onnxruntime(const ExportedModel& exported,
                                           const EngineOptions& options) {
  return std::make_unique<OnnxRuntime>(exported, options);
}

}  // namespace liteseg
