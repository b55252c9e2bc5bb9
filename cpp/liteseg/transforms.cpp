#include "liteseg/transforms.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <opencv2/imgproc.hpp>
#include <string>

#include "liteseg/error.h"
#include "liteseg/image_file.h"
#include "liteseg/yaml.h"

namespace liteseg {
namespace {

std::string type_of(const YAML::Node& node) {
  if (!node.IsMap() || !node["type"].IsDefined() || !node["type"].IsScalar()) {
    throw Error("Deploy: transforms has an entry without a type");
  }
  return node["type"].Scalar();
}

/// Rounds as Python's round(): halves to even.
int rounded(double value) {
  if (!(std::abs(value) < 1 << 30)) {
    throw ImageError("a transform resizes an image to a side of " + std::to_string(value));
  }
  return static_cast<int>(std::nearbyint(value));
}

cv::Mat resized(const cv::Mat& image, cv::Size size, int interpolation = cv::INTER_LINEAR) {
  if (size.width < 1 || size.height < 1 ||
      static_cast<int64_t>(size.width) * size.height > max_pixels()) {
    throw ImageError("a transform resizes it from " + std::to_string(image.cols) + "x" +
                     std::to_string(image.rows) + " to " + std::to_string(size.width) + "x" +
                     std::to_string(size.height) + " pixels");
  }
  cv::Mat result;
  cv::resize(image, result, size, 0, 0, interpolation);
  return result;
}

cv::Mat nearest(const cv::Mat& values, cv::Size size) {
  if (values.size() == size) {
    return values;
  }
  cv::Mat result;
  cv::resize(values, result, size, 0, 0, cv::INTER_NEAREST);
  return result;
}

cv::Mat with_long_side(const cv::Mat& image, int side) {
  const double scale = static_cast<double>(side) / std::max(image.cols, image.rows);
  return resized(image, {rounded(image.cols * scale), rounded(image.rows * scale)});
}

cv::Size read_size(const Section& section, const char* key) {
  const YAML::Node node = section[key];
  if (!node.IsSequence() || node.size() != 2) {
    throw Error(std::string("Deploy: transforms: ") + key + " must be [width, height]");
  }
  const int64_t width = to_integer(node[0]), height = to_integer(node[1]);
  if (width < 1 || height < 1 || width > 1 << 20 || height > 1 << 20) {
    throw Error(std::string("Deploy: transforms: ") + key + " must be 1 to 1048576 pixels a side");
  }
  return {static_cast<int>(width), static_cast<int>(height)};
}

}  // namespace

Transforms::Normalize Transforms::read_normalize(const YAML::Node& node) {
  const Section section(node, "Deploy: Normalize", {"type", "mean", "std"});
  const auto values = [&](const char* key) {
    if (!section.has(key)) {
      return cv::Vec3d::all(0.5);
    }
    const YAML::Node list = section[key];
    if (!list.IsSequence() || (list.size() != 1 && list.size() != 3)) {
      section.refuse(key, "must be a list of one or three numbers");
    }
    cv::Vec3d bgr;
    for (size_t i = 0; i < 3; ++i) {
      bgr[2 - static_cast<int>(i)] = to_number(list[list.size() == 1 ? 0 : i]);
    }
    return bgr;
  };
  const Normalize result{values("mean"), values("std")};
  for (const double value : result.std.val) {
    if (value == 0) {
      section.refuse("std", "must not be 0");
    }
  }
  return result;
}

std::function<cv::Mat(const cv::Mat&)> Transforms::read_step(const YAML::Node& node) {
  const std::string type = type_of(node);
  const std::string name = "Deploy: " + printable(type);
  if (type == "Normalize") {
    return [normalize = read_normalize(node)](const cv::Mat& image) {
      cv::Mat result = image.clone();
      result.forEach<cv::Vec3f>([&](cv::Vec3f& pixel, const int*) {
        for (int channel = 0; channel < 3; ++channel) {
          pixel[channel] = normalize(pixel[channel], channel);
        }
      });
      return result;
    };
  }
  if (type == "Resize") {
    static const std::map<std::string, int> known = {{"NEAREST", cv::INTER_NEAREST},
                                                     {"LINEAR", cv::INTER_LINEAR},
                                                     {"CUBIC", cv::INTER_CUBIC},
                                                     {"AREA", cv::INTER_AREA},
                                                     {"LANCZOS4", cv::INTER_LANCZOS4}};
    const Section section(node, name,
                          {"type", "target_size", "keep_ratio", "size_divisor", "interp"});
    const auto interp = known.find(section.has("interp") ? section.text("interp") : "LINEAR");
    if (interp == known.end()) {
      section.refuse("interp", "must be NEAREST, LINEAR, CUBIC, AREA or LANCZOS4");
    }
    const cv::Size target =
        section.has("target_size") ? read_size(section, "target_size") : cv::Size(512, 512);
    const int divisor = section.integer("size_divisor", 0);
    if (divisor < 0) {
      section.refuse("size_divisor", "must be positive");
    }
    return [target, divisor, keep_ratio = section.flag("keep_ratio", false),
            interpolation = interp->second](const cv::Mat& image) {
      cv::Size size = target;
      if (keep_ratio) {
        const auto [smaller, larger] = std::minmax(image.cols, image.rows);
        const double scale =
            std::min(static_cast<double>(std::max(target.width, target.height)) / larger,
                     static_cast<double>(std::min(target.width, target.height)) / smaller);
        size = {rounded(image.cols * scale), rounded(image.rows * scale)};
      }
      if (divisor) {
        const auto up = [&](int n) {
          return rounded(std::ceil(static_cast<double>(n) / divisor) * divisor);
        };
        size = {up(size.width), up(size.height)};
      }
      return resized(image, size, interpolation);
    };
  }
  if (type == "ResizeByLong") {
    const Section section(node, name, {"type", "long_size"});
    section["long_size"];
    return [side = section.integer("long_size", 0)](const cv::Mat& image) {
      return with_long_side(image, side);
    };
  }
  if (type == "ResizeByShort") {  // without max_size, which depends on earlier images
    const Section section(node, name, {"type", "short_size"});
    section["short_size"];
    return [side = section.integer("short_size", 0)](const cv::Mat& image) {
      const double scale = static_cast<double>(side) / std::min(image.cols, image.rows);
      return resized(image, {rounded(image.cols * scale), rounded(image.rows * scale)});
    };
  }
  if (type == "LimitLong") {
    const Section section(node, name, {"type", "max_long", "min_long"});
    return [most = section.integer("max_long", INT_MAX),
            least = section.integer("min_long", 0)](const cv::Mat& image) {
      const int side = std::max(image.cols, image.rows);
      const int target = side > most ? most : std::max(side, least);
      return target == side ? image : with_long_side(image, target);
    };
  }
  if (type == "Padding") {
    const Section section(node, name,
                          {"type", "target_size", "im_padding_value", "label_padding_value"});
    return [size = read_size(section, "target_size"),
            value = section.number("im_padding_value", 127.5)](const cv::Mat& image) {
      const int right = size.width - image.cols, below = size.height - image.rows;
      if (right < 0 || below < 0) {
        throw ImageError("it has " + std::to_string(image.cols) + "x" + std::to_string(image.rows) +
                         " pixels, more than the target_size of "
                         "Padding in deploy.yaml");
      }
      cv::Mat result;
      cv::copyMakeBorder(image, result, 0, below, 0, right, cv::BORDER_CONSTANT,
                         cv::Scalar::all(value));
      return result;
    };
  }
  throw Error("Deploy: transforms has the type '" + printable(type) +
              "'; this program has Normalize, Resize, ResizeByLong, ResizeByShort, LimitLong and "
              "Padding");
}

Transforms Transforms::read(const YAML::Node& list) {
  constexpr size_t most = 100;
  if (!list.IsSequence() || list.size() > most) {
    throw Error("Deploy: transforms must be a list");
  }
  Transforms transforms;
  for (size_t i = 0; i < list.size(); ++i) {
    if (i + 1 == list.size() && type_of(list[i]) == "Normalize") {
      transforms.last_ = read_normalize(list[i]);
    } else {
      transforms.steps_.push_back({read_step(list[i]), type_of(list[i]) == "Padding"});
    }
  }
  return transforms;
}

Planes Transforms::operator()(const cv::Mat& image) const {
  cv::Mat values = image;
  if (!steps_.empty()) {
    image.convertTo(values, CV_32F);
  }
  for (const Step& step : steps_) {
    values = step.run(values);
  }
  Planes planes{values.rows, values.cols, std::vector<float>(values.total() * 3)};
  const auto fill = [&](int channel, auto pixel_type, const auto& convert) {
    float* target = planes.values.data() + values.total() * static_cast<size_t>(2 - channel);
    for (int y = 0; y < values.rows; ++y) {
      const auto* row = values.ptr<decltype(pixel_type)>(y);
      for (int x = 0; x < values.cols; ++x) {
        *target++ = convert(row[x][channel]);
      }
    }
  };
  for (int channel = 0; channel < 3; ++channel) {
    const auto convert = [&](float value) { return last_ ? (*last_)(value, channel) : value; };
    if (values.depth() == CV_32F) {
      fill(channel, cv::Vec3f(), convert);
      continue;
    }
    float table[256];
    for (int value = 0; value < 256; ++value) {
      table[value] = convert(static_cast<float>(value));
    }
    fill(channel, cv::Vec3b(), [&](uchar value) { return table[value]; });
  }
  return planes;
}

cv::Mat Transforms::restored(const cv::Mat& values, cv::Size size) const {
  if (std::none_of(steps_.begin(), steps_.end(), [](const Step& step) { return step.pads; })) {
    return nearest(values, size);
  }
  std::vector<cv::Size> before;
  cv::Mat image = cv::Mat::zeros(size, CV_32FC3), result = values;
  for (const Step& step : steps_) {
    before.push_back(image.size());
    image = step.run(image);
  }
  for (size_t i = steps_.size(); i-- > 0;) {
    result =
        steps_[i].pads ? result(cv::Rect({0, 0}, before[i])).clone() : nearest(result, before[i]);
  }
  return result;
}

}  // namespace liteseg
