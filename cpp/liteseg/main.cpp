// liteseg infer: segments images with an exported model; takes flags of Python's `liteseg infer`.

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <map>
#include <set>

#include "liteseg/error.h"
#include "liteseg/image_file.h"
#include "liteseg/pipeline.h"

namespace fs = std::filesystem;

namespace {

constexpr const char* kUsage =
    R"(usage: liteseg infer --config EXPORTED --image_path PATH [--save_dir DIR] [flags]

  --config EXPORTED   folder that `liteseg export` wrote, or its deploy.yaml
  --image_path PATH   an image, a folder, or a list file
  --save_dir DIR      folder for label images and overlays (default: ./output)
  --runtime NAME      what runs the export (default: the first that this program was built with)
  --precision NAME    fp32 (default), bf16 or int8, as far as the runtime has it
  --device NAME       auto or cpu
  --cpu_threads N     CPU threads (default: all available)
  --save_confidence   also write the probability of each label, as a grey image
  --min_confidence P  labels of a smaller probability become 255
  --on_error WHAT     stop (default) or skip, at an image that cannot be segmented
  --max_pixels N      refuse images of more pixels (default: 178956970)
  --json              print the result as JSON
  --timed WHAT        time the first image instead, and write nothing: engine, call (with copies of
                      input and output) or file (from the image file to its label map)
  --warmup N          untimed rounds (default: 5)
  --repeats N         timed rounds (default: 30)
)";

/// What the command line says. Its mistakes are std::invalid_argument.
class Arguments {
 public:
  Arguments(int argc, char** argv) {
    static const std::set<std::string> flags = {"--save_confidence", "--json"};
    static const std::set<std::string> options = {
        "--config", "--image_path",  "--save_dir",      "--runtime",    "--precision",
        "--device", "--cpu_threads", "--on_error",      "--max_pixels", "--timed",
        "--warmup", "--repeats",     "--min_confidence"};
    for (int i = 2; i < argc; ++i) {
      std::string name = argv[i];
      const size_t equals = name.find('=');
      std::string value = equals == name.npos ? "" : name.substr(equals + 1);
      name = name.substr(0, equals);
      if (options.count(name)) {
        if (equals == std::string::npos && ++i == argc) {
          throw std::invalid_argument(name + ": expected one argument");
        }
        values_[name] = equals == std::string::npos ? argv[i] : value;
      } else if (flags.count(name) && equals == std::string::npos) {
        values_[name] = "";
      } else {
        throw std::invalid_argument("unrecognized arguments: " + liteseg::printable(argv[i]));
      }
    }
  }

  bool has(const char* name) const { return values_.count(name) > 0; }

  std::string text(const char* name, const char* fallback = nullptr) const {
    const auto found = values_.find(name);
    if (found == values_.end() && !fallback) {
      throw std::invalid_argument(std::string("the following arguments are required: ") + name);
    }
    return found == values_.end() ? fallback : found->second;
  }

  std::string choice(const char* name, const std::vector<std::string>& choices) const {
    const std::string value = text(name, choices.front().c_str());
    if (std::find(choices.begin(), choices.end(), value) == choices.end()) {
      std::string listed;
      for (const std::string& known : choices) {
        listed += (listed.empty() ? "" : ", ") + known;
      }
      throw std::invalid_argument(std::string(name) + ": invalid choice: " +
                                  liteseg::printable(value) + "; this program has " + listed);
    }
    return value;
  }

  double number(const char* name, double fallback, double least, double most, bool whole) const {
    const std::string value = text(name, "");
    if (!has(name)) {
      return fallback;
    }
    char* end = nullptr;
    const double number = std::strtod(value.c_str(), &end);
    if (value.empty() || *end || !(number >= least && number <= most) ||
        (whole && number != static_cast<double>(static_cast<int64_t>(number)))) {
      throw std::invalid_argument(std::string(name) +
                                  ": invalid value: " + liteseg::printable(value));
    }
    return number;
  }

 private:
  std::map<std::string, std::string> values_;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
}

std::string json(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      result += '\\';
      result += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escaped[7];
      std::snprintf(escaped, sizeof escaped, "\\u%04x", c);
      result += escaped;
    } else {
      result += c;
    }
  }
  return result + "\"";
}

/// Times one image; prints minimum, median and 95th percentile.
void time_image(liteseg::Predictor& predictor, const Arguments& arguments,
                const liteseg::EngineOptions& options, const fs::path& path) {
  const std::string what = arguments.choice("--timed", {"call", "engine", "file"});
  const auto warmup = static_cast<int>(arguments.number("--warmup", 5, 0, 1e6, true));
  const auto repeats = static_cast<int>(arguments.number("--repeats", 30, 1, 1e6, true));
  liteseg::Planes planes = predictor.preprocess(liteseg::read_image(path));
  predictor.run(planes);
  std::vector<double> times;
  for (int round = 0; round < warmup + repeats; ++round) {
    const auto started = std::chrono::steady_clock::now();
    if (what == "engine") {
      predictor.compute_again();
    } else if (what == "call") {
      predictor.run(planes);
    } else {
      predictor(liteseg::read_image(path));
    }
    const std::chrono::duration<double, std::milli> took =
        std::chrono::steady_clock::now() - started;
    if (round >= warmup) {
      times.push_back(took.count());
    }
  }
  std::sort(times.begin(), times.end());
  const double p95 = times[static_cast<size_t>(0.95 * static_cast<double>(times.size() - 1) + 0.5)];
  if (arguments.has("--json")) {
    std::printf(
        "{\"timed\": \"%s\", \"runtime\": \"%s\", \"precision\": \"%s\", \"threads\": %d, "
        "\"input_hw\": [%d, %d], \"warmup\": %d, \"repeats\": %d, \"min_ms\": %.4f, "
        "\"median_ms\": %.4f, \"p95_ms\": %.4f}\n",
        what.c_str(), options.runtime.c_str(), options.precision.c_str(), options.threads,
        planes.height, planes.width, warmup, repeats, times.front(), median(times), p95);
  } else {
    std::printf(
        "%s, %s, %d threads, 1x3x%dx%d; %s; %d rounds after %d\n"
        "  min %.1f  median %.1f  p95 %.1f ms\n",
        options.runtime.c_str(), options.precision.c_str(), options.threads, planes.height,
        planes.width, what.c_str(), repeats, warmup, times.front(), median(times), p95);
  }
}

void infer(const Arguments& arguments) {
  liteseg::EngineOptions options;
  options.runtime = arguments.choice("--runtime", liteseg::runtimes());
  options.precision = arguments.text("--precision", "fp32");
  options.threads =
      static_cast<int>(arguments.number("--cpu_threads", liteseg::usable_cpus(), 1, 1024, true));
  arguments.choice("--device", {"auto", "cpu"});
  liteseg::SegmentOptions extras;
  extras.save_confidence = arguments.has("--save_confidence");
  extras.min_confidence = arguments.number("--min_confidence", 0, 0, 1, false);
  const bool skip = arguments.choice("--on_error", {"stop", "skip"}) == "skip";
  const fs::path save_dir = arguments.text("--save_dir", "./output");
  const std::string config = arguments.text("--config");

  const auto images =
      liteseg::plan_images(arguments.text("--image_path"), save_dir, extras.save_confidence);
  liteseg::Predictor predictor(liteseg::ExportedModel::read(config), options);
  if (arguments.has("--timed")) {
    time_image(predictor, arguments, options, images.front().image);
    return;
  }
  std::string segmented, failed, first_error;
  size_t failures = 0;
  const auto started = std::chrono::steady_clock::now();
  liteseg::segment_images(
      predictor, images, save_dir, extras,
      [&](const liteseg::PlannedImage& image, const std::string& error) {
        if (error.empty()) {
          segmented += (segmented.empty() ? "" : ", ") + ("{\"image\": " + json(image.image)) +
                       ", \"label\": " + json(image.label) +
                       ", \"overlay\": " + json(image.overlay) + "}";
          return;
        }
        if (!skip) {
          throw liteseg::ImageError(error);
        }
        std::fprintf(stderr, "skipped: %s\n", error.c_str());
        failed += (failed.empty() ? "" : ", ") + ("{\"image\": " + json(image.image)) +
                  ", \"error\": " + json(error) + "}";
        first_error = failures++ ? first_error : error;
      });
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - started;
  if (failures == images.size()) {
    throw liteseg::Error("all " + std::to_string(failures) +
                         " images failed, the first one: " + first_error);
  }
  const size_t count = images.size() - failures;
  const double rate = static_cast<double>(count) / std::max(took.count(), 1e-6);
  std::vector<double> times = predictor.engine_ms();
  if (times.size() > 1) {
    times.erase(times.begin());
  }
  if (arguments.has("--json")) {
    std::printf(
        "{\"images\": [%s], \"failed\": [%s], \"images_per_second\": %.4f, "
        "\"engine_ms_median\": %.4f, \"runtime\": \"%s\", \"precision\": \"%s\"}\n",
        segmented.c_str(), failed.c_str(), rate, median(times), options.runtime.c_str(),
        options.precision.c_str());
  } else {
    std::printf("%zu images in %s, %.1f a second; %s alone, %s, median: %.1f ms\n", count,
                liteseg::printable(save_dir.string()).c_str(), rate, options.runtime.c_str(),
                options.precision.c_str(), median(times));
  }
}

/// OpenCV reads its bound on pixels before main(): where it is another, the program starts again.
void limit_pixels(const Arguments& arguments, char** argv) {
  constexpr const char* variable = "OPENCV_IO_MAX_IMAGE_PIXELS";
  const auto wanted = std::to_string(static_cast<int64_t>(
      arguments.number("--max_pixels", static_cast<double>(liteseg::kMostPixels), 1, 1e15, true)));
  const char* set = std::getenv(variable);
  if (!set || set != wanted) {
    setenv(variable, wanted.c_str(), 1);
    execv("/proc/self/exe", argv);
    throw liteseg::Error("cannot start again with " + std::string(variable));
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string command = argc > 1 ? argv[1] : "";
  const bool asks_help = std::any_of(argv + 1, argv + argc, [](const char* word) {
    return std::string(word) == "--help" || std::string(word) == "-h";
  });
  if (asks_help || command != "infer") {
    std::fputs(kUsage, asks_help ? stdout : stderr);
    return asks_help ? 0 : 2;
  }
  try {
    const Arguments arguments(argc, argv);
    limit_pixels(arguments, argv);
    std::cerr.rdbuf(nullptr);  // OpenCV's remarks on broken images, which the errors here name
    infer(arguments);
  } catch (const std::invalid_argument& error) {
    std::fprintf(stderr, "%s\nerror: %s\n", "usage: liteseg infer --help explains the flags",
                 error.what());
    return 2;
  } catch (const liteseg::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", liteseg::last_line(error.what()).c_str());
    return 1;
  }
  return 0;
}
