#pragma once

#include <array>
#include <filesystem>
#include <opencv2/core.hpp>
#include <string>
#include <vector>

#include "liteseg/transforms.h"

namespace liteseg {

/// N, C, H, W of a network's input; kOpen where any number is taken.
using Shape = std::array<int64_t, 4>;
inline constexpr int64_t kOpen = -1;

/// Writes a shape as 1x3x?x?.
std::string written_shape(const Shape& shape);

/// Name and colour of a class; its index is its place in the list of classes.
struct ClassInfo {
  std::string name;
  cv::Vec3b color_bgr;
};

enum class OutputOp { kArgmax, kConfidence, kSoftmax, kNone };

/// A folder that `liteseg export` wrote. deploy.yaml is its only configuration.
struct ExportedModel {
  std::filesystem::path folder;
  std::filesystem::path model;      ///< Paddle's graph
  std::filesystem::path params;     ///< its weights
  std::filesystem::path onnx;       ///< empty without an ONNX file
  std::filesystem::path onnx_int8;  ///< empty without a quantised one
  Shape input_shape{kOpen, 3, kOpen, kOpen};
  double scale = 1.0;  ///< at which the graph runs the network
  Transforms transforms;
  OutputOp output_op = OutputOp::kArgmax;
  std::vector<ClassInfo> classes;  ///< empty for exports of PaddleSeg's

  /// Reads a folder, or the deploy.yaml or the model in it, and checks that its files are those
  /// that were exported. Anything in deploy.yaml that this program does not know is an Error.
  static ExportedModel read(const std::filesystem::path& path);

  /// Names and colours; numbers and PaddleSeg's colours for exports without them.
  std::vector<ClassInfo> named_classes() const;
};

}  // namespace liteseg
