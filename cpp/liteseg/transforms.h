#pragma once

#include <yaml-cpp/yaml.h>

#include <functional>
#include <opencv2/core.hpp>
#include <optional>
#include <vector>

namespace liteseg {

/// A network's input for one image: (3, height, width) of float32, RGB.
struct Planes {
  int height = 0;
  int width = 0;
  std::vector<float> values;
};

/// The transforms of deploy.yaml, with the arithmetic of PaddleSeg's in NumPy and OpenCV.
class Transforms {
 public:
  /// Reads the list; a transform or an argument that is not known here is an Error.
  static Transforms read(const YAML::Node& list);

  /// Transforms an image, (H, W) of CV_8UC3 in BGR. Throws ImageError for sizes that cannot be.
  Planes operator()(const cv::Mat& image) const;

  /// Returns labels or confidences at the size of the image, before the transforms changed it.
  cv::Mat restored(const cv::Mat& values, cv::Size size) const;

 private:
  struct Normalize {
    cv::Vec3d mean, std;  // BGR

    float operator()(float value, int channel) const {
      const float scaled = value / 255.0F;  // rounded to float32 after each step, as in NumPy
      const auto centred = static_cast<float>(static_cast<double>(scaled) - mean[channel]);
      return static_cast<float>(static_cast<double>(centred) / std[channel]);
    }
  };
  struct Step {
    std::function<cv::Mat(const cv::Mat&)> run;  // of CV_32FC3, BGR
    bool pads = false;
  };

  static Normalize read_normalize(const YAML::Node& node);
  static std::function<cv::Mat(const cv::Mat&)> read_step(const YAML::Node& node);

  std::vector<Step> steps_;
  std::optional<Normalize> last_;  // where the list ends in it, it is done while planes are made
};

}  // namespace liteseg
