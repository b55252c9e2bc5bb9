#include <paddle_inference_api.h>

#include <algorithm>

#include "liteseg/engine.h"
#include "liteseg/error.h"

namespace liteseg {
namespace {

/// Sets what liteseg_plugin/runtimes/paddle.py sets for oneDNN, and for the same reasons.
class Paddle : public Engine {
 public:
  Paddle(const ExportedModel& exported, const EngineOptions& options)
      : exported_(exported), options_(options), with_onednn_(create(true)), engine_(with_onednn_) {}

  // The engine does not report open shapes.
  Shape input_shape() const override { return exported_.input_shape; }

  void feed(float* values, const Shape& shape) override {
    constexpr double one_cell = 32;  // up to here, oneDNN reads uninitialised memory
    engine_ = with_onednn_;
    if (static_cast<double>(std::min(shape[2], shape[3])) * exported_.scale <= one_cell) {
      without_onednn_ = without_onednn_ ? without_onednn_ : create(false);
      engine_ = without_onednn_;
    }
    const auto input = engine_->GetInputHandle(engine_->GetInputNames()[0]);
    input->Reshape({shape.begin(), shape.end()});
    input->CopyFromCpu(values);
  }

  void compute() override {
    if (!engine_->Run()) {
      throw Error("Paddle Inference cannot run the model");
    }
  }

  Output fetch() override {
    const auto output = engine_->GetOutputHandle(engine_->GetOutputNames()[0]);
    const std::vector<int> shape = output->shape();
    paddle_infer::PlaceType place;
    int size = 0;
    switch (output->type()) {
      case paddle_infer::DataType::FLOAT32:
        return Output::copy({shape.begin(), shape.end()}, "f32",
                            output->data<float>(&place, &size));
      case paddle_infer::DataType::INT32:
        return Output::copy({shape.begin(), shape.end()}, "i32", output->data<int>(&place, &size));
      case paddle_infer::DataType::INT64:
        return Output::copy({shape.begin(), shape.end()}, "i64",
                            output->data<int64_t>(&place, &size));
      default:
        return Output::copy({}, "unknown", nullptr);
    }
  }

 private:
  std::shared_ptr<paddle_infer::Predictor> create(bool onednn) const {
    paddle_infer::Config config(exported_.model.string(), exported_.params.string());
    config.DisableGlogInfo();
    if (exported_.model.extension() == ".json") {
      config.EnableNewIR(true);
      config.EnableNewExecutor(true);
    }
    config.DisableGpu();
    if (onednn) {
      config.EnableMKLDNN();
      if (options_.precision == "bf16") {
        config.EnableMkldnnBfloat16();
      }
    } else {
      config.DisableMKLDNN();
    }
    config.SetCpuMathLibraryNumThreads(options_.threads);
    config.EnableMemoryOptim();
    try {
      return paddle_infer::CreatePredictor(config);
    } catch (const std::exception& error) {
      throw Error("Paddle cannot load " + printable(exported_.model.string()) + " with " +
                  printable(exported_.params.filename().string()) + ": " + last_line(error.what()));
    }
  }

  ExportedModel exported_;
  EngineOptions options_;
  std::shared_ptr<paddle_infer::Predictor> with_onednn_, without_onednn_, engine_;
};

}  // namespace

std::unique_ptr<Engine> create_paddle(const ExportedModel& exported, const EngineOptions& options) {
  return std::make_unique<Paddle>(exported, options);
}

}  // namespace liteseg
