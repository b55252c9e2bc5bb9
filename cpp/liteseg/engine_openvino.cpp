#include <algorithm>
#include <deque>
#include <openvino/openvino.hpp>

#include "liteseg/engine.h"
#include "liteseg/error.h"

namespace liteseg {
namespace {

/// Sets what liteseg_plugin/runtimes/openvino.py sets, and for the same reasons.
class OpenVino : public Engine {
 public:
  OpenVino(const ExportedModel& exported, const EngineOptions& options)
      : path_(onnx_file(exported, options.precision)), always_fixed_(options.precision == "int8") {
    settings_ = {
        ov::hint::inference_precision(options.precision == "bf16" ? ov::element::bf16
                                                                  : ov::element::f32),
        ov::inference_num_threads(options.threads),
        ov::hint::enable_cpu_pinning(options.threads >= usable_cpus()),
    };
    try {
      const ov::AnyMap cache = {{"CPU_RUNTIME_CACHE_CAPACITY", 200}};
      core_.set_property("CPU", cache);
      settings_.insert(cache.begin(), cache.end());
    } catch (const ov::Exception&) {  // an OpenVINO without this property
    }
    loading([&] { model_ = core_.read_model(path_.string()); });
    const ov::PartialShape extents = model_->input(0).get_partial_shape();
    if (extents.rank().is_dynamic() || extents.size() != 4) {
      throw Error(printable(path_.string()) + " does not take N, C, H, W");
    }
    for (size_t i = 0; i < input_shape_.size(); ++i) {
      input_shape_[i] = extents[i].is_static() ? extents[i].get_length() : kOpen;
    }
    open_ = model_->is_dynamic();
    if (!(open_ && always_fixed_)) {
      request({});
    }
  }

  Shape input_shape() const override { return input_shape_; }

  void feed(float* values, const Shape& shape) override {
    const ov::Shape extents(shape.begin(), shape.end());
    // A size gets a model of its own when it comes again; in INT8 at once.
    const bool fixed = open_ && (always_fixed_ || extents == last_);
    last_ = extents;
    request_ = request(fixed ? extents : ov::Shape());
    request_.set_input_tensor(ov::Tensor(ov::element::f32, extents, values));
  }

  void compute() override { request_.infer(); }

  Output fetch() override {
    const ov::Tensor tensor = request_.get_output_tensor(0);
    const ov::Shape shape = tensor.get_shape();
    return Output::copy({shape.begin(), shape.end()}, tensor.get_element_type().get_type_name(),
                        tensor.data());
  }

 private:
  template <class Function>
  void loading(const Function& function) const {
    try {
      function();
    } catch (const ov::Exception& error) {
      throw Error("OpenVINO cannot load " + printable(path_.string()) + ": " +
                  last_line(error.what()));
    }
  }

  /// Returns a request for batches of a shape; an empty one is any.
  ov::InferRequest request(const ov::Shape& shape) {
    constexpr size_t most = 4;
    for (auto held = requests_.begin(); held != requests_.end(); ++held) {
      if (held->first == shape) {
        std::rotate(held, held + 1, requests_.end());  // the last used is the last
        return requests_.back().second;
      }
    }
    if (requests_.size() == most) {
      requests_.pop_front();
    }
    loading([&] {
      std::shared_ptr<ov::Model> model = model_;
      if (!shape.empty()) {
        model = model_->clone();
        model->reshape(ov::PartialShape(shape));
      }
      requests_.emplace_back(shape,
                             core_.compile_model(model, "CPU", settings_).create_infer_request());
    });
    return requests_.back().second;
  }

  std::filesystem::path path_;
  bool always_fixed_, open_ = false;
  ov::Core core_;
  ov::AnyMap settings_;
  std::shared_ptr<ov::Model> model_;
  Shape input_shape_{};
  std::deque<std::pair<ov::Shape, ov::InferRequest>> requests_;
  ov::Shape last_;
  ov::InferRequest request_;
};

}  // namespace

std::unique_ptr<Engine> create_openvino(const ExportedModel& exported,
                                        const EngineOptions& options) {
  return std::make_unique<OpenVino>(exported, options);
}

}  // namespace liteseg
