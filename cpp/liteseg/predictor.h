#pragma once

#include <memory>
#include <opencv2/core.hpp>
#include <vector>

#include "liteseg/engine.h"
#include "liteseg/exported.h"

namespace liteseg {

/// What a model says about an image.
struct Segmentation {
  cv::Mat labels;      ///< class indices, CV_32S
  cv::Mat confidence;  ///< their probabilities, CV_32F; empty unless it was asked for
};

/// An exported model in an engine: label maps of images.
///
///     liteseg::Predictor predictor(liteseg::ExportedModel::read("exported"), {"openvino"});
///     cv::Mat labels = predictor(liteseg::read_image("street.png")).labels;
///
/// preprocess() and postprocess() may be called by any thread, run() by one at a time.
class Predictor {
 public:
  Predictor(ExportedModel exported, const EngineOptions& options);

  /// Segments an image, (H, W) of CV_8UC3, BGR.
  Segmentation operator()(const cv::Mat& image, bool with_confidence = false);

  Planes preprocess(const cv::Mat& image) const { return exported_.transforms(image); }
  /// Runs the model; Planes are filled up to a batch that the model takes.
  Output run(Planes& planes);
  Segmentation postprocess(const Output& output, cv::Size size, bool with_confidence) const;

  /// Runs the engine alone again on what run() passed to it.
  void compute_again() { engine_->compute(); }
  /// Milliseconds that the engine took for each image, copies included.
  const std::vector<double>& engine_ms() const { return engine_ms_; }
  const ExportedModel& exported() const { return exported_; }

 private:
  void require_output(const Output& output) const;

  ExportedModel exported_;
  std::unique_ptr<Engine> engine_;
  std::vector<double> engine_ms_;
};

}  // namespace liteseg
