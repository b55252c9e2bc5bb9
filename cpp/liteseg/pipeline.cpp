#include "liteseg/pipeline.h"

#include <sys/stat.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <fstream>
#include <future>
#include <map>
#include <set>
#include <sstream>
#include <thread>

#include "liteseg/drawing.h"
#include "liteseg/error.h"
#include "liteseg/image_file.h"

namespace fs = std::filesystem;

namespace liteseg {
namespace {

constexpr const char* kOverlays = "added_prediction";
constexpr const char* kLabelMaps = "pseudo_color_prediction";
constexpr const char* kConfidence = "confidence";
constexpr const char* kLegend = "legend.png";

bool is_image(const fs::path& path) {
  static const std::set<std::string> suffixes = {".bmp", ".jpeg", ".jpg", ".png",
                                                 ".tif", ".tiff", ".webp"};
  std::string suffix = path.extension().string();
  std::transform(suffix.begin(), suffix.end(), suffix.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return suffixes.count(suffix) > 0;
}

void search(const fs::path& folder, std::vector<fs::path>& found) {
  std::vector<fs::path> files, folders;
  for (const auto& entry : fs::directory_iterator(folder)) {
    (entry.is_directory() ? folders : files).push_back(entry.path().filename());
  }
  std::sort(files.begin(), files.end());
  std::sort(folders.begin(), folders.end());
  const auto has = [&](const char* name) {
    return std::binary_search(folders.begin(), folders.end(), fs::path(name));
  };
  std::set<std::string> skipped = {".ipynb_checkpoints"};
  if (has(kOverlays) && has(kLabelMaps)) {  // results of an earlier run
    skipped.insert({kOverlays, kLabelMaps, kConfidence, kLegend});
  }
  for (const fs::path& name : files) {
    if (is_image(name) && name.string()[0] != '.' && !skipped.count(name.string())) {
      found.push_back(folder / name);
    }
  }
  for (const fs::path& name : folders) {
    if (!skipped.count(name.string()) && !fs::is_symlink(folder / name)) {
      search(folder / name, found);
    }
  }
}

std::vector<fs::path> read_list(const fs::path& path) {
  const std::string name = printable(path.string());
  const Error neither(name + " is neither an image, a folder nor a list of images");
  std::ifstream file(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), {});
  if (text.find('\0') != text.npos) {
    throw neither;
  }
  if (text.rfind("\xef\xbb\xbf", 0) == 0) {
    text.erase(0, 3);
  }
  std::istringstream lines(text);
  std::vector<fs::path> images;
  std::vector<std::string> missing;
  bool named = false;
  std::string line, first;
  for (int number = 1; std::getline(lines, line); ++number) {
    if (!(std::istringstream(line) >> first)) {
      continue;
    }
    images.push_back(path.parent_path() / first);
    named = named || is_image(first);
    if (!fs::is_regular_file(images.back())) {
      missing.push_back("line " + std::to_string(number) + " of list " + name +
                        ": image not found: " + printable(images.back().string()));
    }
  }
  if (images.empty()) {
    throw Error("list " + name + " is empty");
  }
  if (missing.size() == images.size() && !named) {
    throw neither;
  }
  if (!missing.empty()) {
    throw Error(missing.front());
  }
  return images;
}

std::vector<fs::path> find_images(const fs::path& path) {
  std::vector<fs::path> found;
  if (fs::is_directory(path)) {
    search(path, found);
    if (found.empty()) {
      throw Error("no images in folder " + printable(path.string()) +
                  "; files that end in .bmp, .jpeg, .jpg, .png, .tif, .tiff, .webp are images");
    }
  } else if (!fs::is_regular_file(path)) {
    throw Error("image path not found: " + printable(path.string()));
  } else {
    found = is_image(path) ? std::vector{path} : read_list(path);
  }
  return found;
}

/// A name of the results of an image: its path below the folder, without a root or `..`.
fs::path name_below(const fs::path& folder, const fs::path& path) {
  fs::path name;
  for (const fs::path& part : fs::absolute(path).lexically_relative(fs::absolute(folder))) {
    if (part != "..") {
      name /= part;
    }
  }
  return name;
}

/// A key that two names of one file share, whatever links.
std::string identity(const fs::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0) {
    return std::to_string(status.st_dev) + ":" + std::to_string(status.st_ino);
  }
  return fs::weakly_canonical(path).string();
}

void check_results(const std::vector<PlannedImage>& images, const fs::path& legend) {
  std::map<std::string, fs::path> inputs, sources;
  for (const PlannedImage& planned : images) {
    inputs.emplace(identity(planned.image), planned.image);
  }
  const auto check = [&](const fs::path& result, const fs::path& source) {
    const auto overwritten = inputs.find(identity(result));
    if (overwritten != inputs.end()) {
      throw Error("the result of " + printable(source.string()) + " would overwrite image " +
                  printable(overwritten->second.string()) + "; choose another --save_dir");
    }
    const auto [other, is_new] = sources.emplace(fs::weakly_canonical(result).string(), source);
    if (!is_new && identity(other->second) != identity(source)) {
      throw Error(printable(other->second.string()) + " and " + printable(source.string()) +
                  " have the same result file " + printable(result.string()) +
                  "; rename one of them, or segment them into two folders");
    }
  };
  for (const PlannedImage& planned : images) {
    for (const fs::path* result : {&planned.label, &planned.overlay, &planned.confidence}) {
      if (!result->empty()) {
        check(*result, planned.image);
      }
    }
  }
  check(legend, "the legend");
}

/// A few threads that run what they are given, in order.
class Threads {
 public:
  explicit Threads(int count) {
    for (int i = 0; i < count; ++i) {
      threads_.emplace_back([this] { work(); });
    }
  }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;
  ~Threads() {
    {
      const std::lock_guard lock(mutex_);
      ended_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) {
      thread.join();
    }
  }

  template <class Function>
  auto submit(Function function) {
    using Result = decltype(function());
    auto task = std::make_shared<std::packaged_task<Result()>>(std::move(function));
    {
      const std::lock_guard lock(mutex_);
      tasks_.emplace_back([task] { (*task)(); });
    }
    changed_.notify_one();
    return task->get_future();
  }

 private:
  void work() {
    for (;;) {
      std::function<void()> task;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return ended_ || !tasks_.empty(); });
        if (tasks_.empty()) {
          return;
        }
        task = std::move(tasks_.front());
        tasks_.pop_front();
      }
      task();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  bool ended_ = false;
  std::vector<std::thread> threads_;
};

/// An image on its way; one that fails travels on as its error.
struct Travelling {
  cv::Mat image;
  Planes planes;
  Output output;
  std::string error;

  template <class Function>
  void attempt(const Function& function) {
    if (error.empty()) {
      try {
        function();
      } catch (const ImageError& failed) {
        error = failed.what();
      }
    }
  }
};

void write_results(const PlannedImage& planned, const cv::Mat& image, Segmentation found,
                   const std::vector<ClassInfo>& classes, double min_confidence) {
  if (min_confidence > 0) {
    found.labels.setTo(255, found.confidence < min_confidence);
  }
  write_label_map(planned.label, found.labels, classes);
  write_image(planned.overlay, overlay(image, found.labels, classes));
  if (!planned.confidence.empty()) {
    cv::Mat grey;
    found.confidence.convertTo(grey, CV_8U, 255);
    write_image(planned.confidence, grey);
  }
}

}  // namespace

std::vector<PlannedImage> plan_images(const fs::path& image_path, const fs::path& save_dir,
                                      bool with_confidence) {
  std::vector<PlannedImage> planned;
  const fs::path folder = fs::is_directory(image_path) ? image_path : image_path.parent_path();
  for (const fs::path& image : find_images(image_path)) {
    const fs::path name = name_below(folder.empty() ? "." : folder, image);
    fs::path added = name, label = name;
    if (!is_image(name)) {
      added += ".png";  // OpenCV writes by the suffix
    }
    label.replace_extension(".png");
    planned.push_back({image, save_dir / kLabelMaps / label, save_dir / kOverlays / added,
                       with_confidence ? save_dir / kConfidence / label : fs::path()});
  }
  check_results(planned, save_dir / kLegend);
  return planned;
}

void segment_images(Predictor& predictor, const std::vector<PlannedImage>& images,
                    const fs::path& save_dir, const SegmentOptions& options,
                    const std::function<void(const PlannedImage&, const std::string&)>& done) {
  const bool with_confidence = options.save_confidence || options.min_confidence > 0;
  const ExportedModel& exported = predictor.exported();
  std::vector<ClassInfo> classes = exported.named_classes();
  if (options.min_confidence > 0 && exported.classes.size() > 255) {
    throw Error("class 255 exists, so that no label is left for ignored");
  }
  const auto ahead = static_cast<size_t>(options.workers);
  Threads readers(options.workers), writers(options.workers);
  std::deque<std::future<Travelling>> reading;
  std::deque<std::future<std::string>> writing;
  size_t next = 0, settled = 0;
  const auto settle = [&](size_t most) {
    while (writing.size() > most) {
      std::future<std::string> first = std::move(writing.front());
      writing.pop_front();
      const std::string error = first.get();
      done(images[settled++], error);
    }
  };
  for (const PlannedImage& planned : images) {
    while (next < images.size() && reading.size() < ahead) {
      reading.push_back(readers.submit([&predictor, path = images[next++].image] {
        Travelling item;
        item.attempt([&] {
          item.image = read_image(path);
          item.planes = predictor.preprocess(item.image);
        });
        return item;
      }));
    }
    auto item = std::make_shared<Travelling>(reading.front().get());
    reading.pop_front();
    item->attempt([&] { item->output = predictor.run(item->planes); });
    item->planes = {};
    writing.push_back(writers.submit([&, item] {
      item->attempt([&] {
        write_results(planned, item->image,
                      predictor.postprocess(item->output, item->image.size(), with_confidence),
                      classes, options.min_confidence);
      });
      return item->error;
    }));
    settle(ahead);
  }
  settle(0);
  if (!exported.classes.empty()) {
    constexpr int width = 480;
    write_image(save_dir / kLegend, legend_bar(classes, width));
  }
}

}  // namespace liteseg
