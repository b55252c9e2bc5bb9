#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "liteseg/predictor.h"

namespace liteseg {

/// An image, and the files of its results.
struct PlannedImage {
  std::filesystem::path image, label, overlay, confidence;  ///< confidence is empty unless wanted
};

struct SegmentOptions {
  bool save_confidence = false;
  double min_confidence = 0;  ///< labels of a smaller probability become 255
  int workers = 2;            ///< threads that read, and as many that write
};

/// Finds the images that `--image_path` names: an image, a folder with its subfolders, or a list
/// with lines `image [label]`; and plans their results. Throws Error, also if a result would
/// overwrite an image or another result.
std::vector<PlannedImage> plan_images(const std::filesystem::path& image_path,
                                      const std::filesystem::path& save_dir, bool with_confidence);

/// Segments images: the next are read and the last written while the model runs. At most
/// 3 * workers + 1 images are in memory. For each, in order, `done` gets it and its error, which is
/// empty if its files are written; if `done` throws, those before it are complete.
void segment_images(Predictor& predictor, const std::vector<PlannedImage>& images,
                    const std::filesystem::path& save_dir, const SegmentOptions& options,
                    const std::function<void(const PlannedImage&, const std::string&)>& done);

}  // namespace liteseg
