#include "liteseg/exported.h"

#include <cmath>
#include <map>

#include "liteseg/checksum.h"
#include "liteseg/error.h"
#include "liteseg/yaml.h"

namespace fs = std::filesystem;

namespace liteseg {
namespace {

constexpr size_t kMostClasses = 256;  // that 8-bit label images hold

fs::path deploy_file(const fs::path& path) {
  const std::string suffix = path.extension().string();
  if (suffix == ".yaml" || suffix == ".yml") {
    return path;
  }
  return (fs::is_regular_file(path) ? path.parent_path() : path) / kDeployFile;
}

/// Returns a file of the exported folder; names outside the folder are errors.
fs::path beside(const fs::path& deploy, const std::string& name) {
  if (name.empty() || name == "." || name == ".." || name.find_first_of("/\\") != name.npos ||
      name.find('\0') != name.npos) {
    throw Error("it names '" + printable(name) + "', which is not a file beside it");
  }
  const fs::path path = deploy.parent_path() / name;
  if (!fs::is_regular_file(path)) {
    throw Error("the file " + printable(path.string()) + " that it names is missing");
  }
  return path;
}

/// Returns the checksums of files that have one.
std::map<fs::path, std::string> read_sums(const YAML::Node& sums,
                                          const std::vector<fs::path>& files) {
  if (!sums.IsMap()) {
    throw Error("liteseg: sha256 must be checksums by file name");
  }
  std::map<fs::path, std::string> wanted;
  for (const fs::path& file : files) {
    const YAML::Node sum = sums[file.filename().string()];
    if (sum.IsDefined() && !sum.IsNull()) {
      wanted[file] = sum.as<std::string>();
    }
  }
  return wanted;
}

Shape read_shape(const YAML::Node& written) {
  if (!written.IsSequence() || written.size() != 4) {
    throw Error("Deploy: input_shape must be N, C, H, W");
  }
  Shape shape;
  for (size_t i = 0; i < 4; ++i) {
    const YAML::Node extent = written[i];
    shape[i] = extent.IsNull() ? kOpen : to_integer(extent);
    if (shape[i] != kOpen && (shape[i] < 1 || shape[i] > 1 << 20)) {
      throw Error("Deploy: input_shape has the extent " + std::to_string(shape[i]));
    }
  }
  if (shape[1] != 3) {
    throw Error("Deploy: input_shape is " + written_shape(shape) +
                "; this program segments images of 3 channels");
  }
  return shape;
}

/// Refuses images that are not of three channels of 8 bits, which are read in BGR.
void require_colour(const YAML::Node& node) {
  const Section image(node, "liteseg: image",
                      {"channels", "channel_order", "max_value", "shown_bands"});
  if (image.integer("channels", 3) != 3) {
    image.refuse("channels", "must be 3: this program segments colour images");
  }
  if (image.has("channel_order") && image.text("channel_order") != "RGB") {
    image.refuse("channel_order", "must be RGB");
  }
  if (image.integer("max_value", 255) != 255) {
    image.refuse("max_value", "must be 255: this program segments images of 8 bits");
  }
  if (image.has("shown_bands") &&
      image["shown_bands"].as<std::vector<int>>() != std::vector{0, 1, 2}) {
    image.refuse("shown_bands", "must be 0, 1, 2");
  }
}

OutputOp read_output_op(const std::string& name) {
  static const std::map<std::string, OutputOp> known = {{"argmax", OutputOp::kArgmax},
                                                        {"confidence", OutputOp::kConfidence},
                                                        {"softmax", OutputOp::kSoftmax},
                                                        {"none", OutputOp::kNone}};
  const auto found = known.find(name);
  if (found == known.end()) {
    throw Error("Deploy: output_op '" + printable(name) +
                "' is unknown; it is argmax, confidence, softmax or none");
  }
  return found->second;
}

std::vector<ClassInfo> read_classes(const YAML::Node& list) {
  if (!list.IsSequence() || list.size() > kMostClasses) {
    throw Error("liteseg: classes must be a list of up to " + std::to_string(kMostClasses));
  }
  std::vector<ClassInfo> classes;
  for (const YAML::Node& node : list) {
    const Section entry(node, "a class", {"name", "color"});
    const YAML::Node color = entry["color"];
    if (!color.IsSequence() || color.size() != 3) {
      throw Error("a class must have a color of red, green and blue");
    }
    ClassInfo info{entry.text("name"), {}};
    for (int i = 0; i < 3; ++i) {
      const int64_t value = to_integer(color[i]);
      if (value < 0 || value > 255) {
        throw Error("class '" + printable(info.name) + "' has a color outside of 0 to 255");
      }
      info.color_bgr[2 - i] = static_cast<uchar>(value);
    }
    classes.push_back(std::move(info));
  }
  return classes;
}

/// PaddleSeg's colours (`get_color_map_list`): VOC's without the black at its start.
cv::Vec3b numbered_color(int index) {
  cv::Vec3b bgr(0, 0, 0);
  int bit = 7;
  for (int rest = index + 1; rest; rest >>= 3, --bit) {
    for (int channel = 0; channel < 3; ++channel) {
      bgr[2 - channel] |= static_cast<uchar>((rest >> channel & 1) << bit);
    }
  }
  return bgr;
}

/// Reads a `deploy.yaml`, the checksums of files in it, and whether it still is what was exported.
ExportedModel read_deploy(const fs::path& path, std::map<fs::path, std::string>& sums,
                          bool& is_changed) {
  const YAML::Node content = read_yaml(path);
  const Section document(content, "it", {"Deploy", "liteseg"});
  const Section deploy(
      document["Deploy"], "Deploy",
      {"model", "params", "transforms", "input_shape", "output_op", "output_dtype"});
  const Section own(document.has("liteseg") ? document["liteseg"] : YAML::Node(YAML::NodeType::Map),
                    "liteseg",
                    {"evaluation_scale", "classes", "onnx", "onnx_int8", "sha256", "provenance",
                     "image", "agreement", "ncnn", "ncnn_weights", "ncnn_fp16_weights", "ncnn_int8",
                     "ncnn_int8_weights"});
  ExportedModel exported;
  exported.folder = path.parent_path();
  exported.model = beside(path, deploy.text("model"));
  exported.params = beside(path, deploy.text("params"));
  std::vector<fs::path> files = {exported.model, exported.params};
  for (const auto& [key, file] :
       {std::pair("onnx", &exported.onnx), std::pair("onnx_int8", &exported.onnx_int8)}) {
    if (own.has(key)) {
      files.push_back(*file = beside(path, own.text(key)));
    }
  }
  if (deploy.has("input_shape")) {
    exported.input_shape = read_shape(deploy["input_shape"]);
  }
  if (own.has("image")) {
    require_colour(own["image"]);
  }
  exported.scale = own.number("evaluation_scale", 1.0);
  if (exported.scale <= 0) {
    own.refuse("evaluation_scale", "must be positive");
  }
  exported.transforms = Transforms::read(deploy["transforms"]);
  exported.output_op = read_output_op(deploy.text("output_op"));
  if (own.has("classes")) {
    exported.classes = read_classes(own["classes"]);
  }
  if (own.has("sha256")) {
    sums = read_sums(own["sha256"], files);
    const auto of_itself = read_sums(own["sha256"], {kDeployFile});
    is_changed = !of_itself.empty() && of_itself.begin()->second != deploy_sha256(content);
  }
  return exported;
}

}  // namespace

std::string written_shape(const Shape& shape) {
  std::string text;
  for (const int64_t n : shape) {
    text += (text.empty() ? "" : "x") + (n == kOpen ? "?" : std::to_string(n));
  }
  return text;
}

ExportedModel ExportedModel::read(const fs::path& path) {
  const fs::path deploy = deploy_file(path);
  if (!fs::is_regular_file(deploy)) {
    throw Error(printable(path.string()) + " is not an exported folder: " +
                printable(deploy.string()) + " is missing; liteseg export writes one");
  }
  ExportedModel exported;
  std::map<fs::path, std::string> sums;
  bool is_changed = false;
  try {
    exported = read_deploy(deploy, sums, is_changed);
  } catch (const std::exception& error) {  // yaml-cpp's too
    throw Error(printable(deploy.string()) +
                " is not the deploy.yaml of an export: " + last_line(error.what()));
  }
  if (is_changed) {
    throw Error(printable(deploy.string()) +
                " is damaged or was edited: it does not hold what was exported. Export again; if "
                "you edited it yourself, remove the line " +
                kDeployFile + " of its sha256");
  }
  for (const auto& [file, sum] : sums) {  // engines load truncated weights
    if (file_sha256(file) != sum) {
      throw Error(printable(file.string()) + " is not the exported file; export again");
    }
  }
  return exported;
}

std::vector<ClassInfo> ExportedModel::named_classes() const {
  std::vector<ClassInfo> named = classes;
  for (int i = 0; classes.empty() && i < static_cast<int>(kMostClasses); ++i) {
    named.push_back({std::to_string(i), numbered_color(i)});
  }
  return named;
}

}  // namespace liteseg
