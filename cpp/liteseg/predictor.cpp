#include "liteseg/predictor.h"

#include <chrono>
#include <cmath>

#include "liteseg/error.h"

namespace liteseg {
namespace {

/// Labels and probabilities of scores (C, height, width), computed in strips that stay in the
/// cache.
Segmentation most_likely(const float* scores, int classes, int height, int width, bool logits) {
  Segmentation result{cv::Mat::zeros(height, width, CV_32S), cv::Mat(height, width, CV_32F)};
  const size_t pixels = static_cast<size_t>(height) * static_cast<size_t>(width);
  constexpr size_t strip = 1 << 14;
  std::vector<float> sum;
  for (size_t start = 0; start < pixels; start += strip) {
    const size_t count = std::min(strip, pixels - start);
    int* label = result.labels.ptr<int>() + start;
    float* best = result.confidence.ptr<float>() + start;
    std::copy_n(scores + start, count, best);
    for (int c = 1; c < classes; ++c) {
      const float* score = scores + static_cast<size_t>(c) * pixels + start;
      for (size_t i = 0; i < count; ++i) {
        label[i] = score[i] > best[i] ? c : label[i];
        best[i] = score[i] > best[i] ? score[i] : best[i];
      }
    }
    if (!logits) {
      continue;
    }
    sum.assign(count, 0);
    for (int c = 0; c < classes; ++c) {
      const float* score = scores + static_cast<size_t>(c) * pixels + start;
      for (size_t i = 0; i < count; ++i) {
        sum[i] += std::exp(score[i] - best[i]);
      }
    }
    for (size_t i = 0; i < count; ++i) {
      best[i] = 1 / sum[i];
    }
  }
  return result;
}

}  // namespace

Predictor::Predictor(ExportedModel exported, const EngineOptions& options)
    : exported_(std::move(exported)), engine_(create_engine(exported_, options)) {}

Segmentation Predictor::operator()(const cv::Mat& image, bool with_confidence) {
  Planes planes = preprocess(image);
  return postprocess(run(planes), image.size(), with_confidence);
}

Output Predictor::run(Planes& planes) {
  const Shape taken = engine_->input_shape();
  const Shape shape{std::max<int64_t>(taken[0], 1), 3, planes.height, planes.width};
  for (size_t i = 0; i < shape.size(); ++i) {
    if (taken[i] != kOpen && taken[i] != shape[i]) {
      throw ImageError("the export takes " + written_shape(taken) + ", not " +
                       written_shape(shape) +
                       " (N x C x H x W); export without --input_shape for images of any size");
    }
  }
  const size_t one = planes.values.size();
  planes.values.resize(one * static_cast<size_t>(shape[0]));
  for (size_t start = one; start < planes.values.size(); start += one) {
    std::copy_n(planes.values.begin(), one, planes.values.begin() + static_cast<ptrdiff_t>(start));
  }
  const auto started = std::chrono::steady_clock::now();
  try {
    engine_->feed(planes.values.data(), shape);
    engine_->compute();
    Output output = engine_->fetch();
    const std::chrono::duration<double, std::milli> took =
        std::chrono::steady_clock::now() - started;
    engine_ms_.push_back(took.count() / static_cast<double>(shape[0]));
    require_output(output);
    return output;
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    throw Error("the engine cannot run the model in " + printable(exported_.folder.string()) +
                " at " + written_shape(shape) + ": " + last_line(error.what()));
  }
}

void Predictor::require_output(const Output& output) const {
  const auto rank = output.shape.size();
  bool fits = output.is_float && rank == 4;
  if (exported_.output_op == OutputOp::kArgmax) {
    fits = !output.is_float && rank == 3;
  } else if (exported_.output_op == OutputOp::kConfidence) {
    fits = fits && output.shape[1] == 2;
  } else if (fits && !exported_.classes.empty()) {
    fits = output.shape[1] == static_cast<int64_t>(exported_.classes.size());
  }
  for (const int64_t n : output.shape) {
    fits = fits && n > 0 && n <= 1 << 20;
  }
  if (!fits) {
    std::string shape;
    for (const int64_t n : output.shape) {
      shape += (shape.empty() ? "" : "x") + std::to_string(n);
    }
    throw Error("the model in " + printable(exported_.folder.string()) + " gives " + shape +
                (output.is_float ? " floats" : " integers") +
                ", which does not fit output_op and classes in deploy.yaml; export again");
  }
}

Segmentation Predictor::postprocess(const Output& output, cv::Size size,
                                    bool with_confidence) const {
  const int height = static_cast<int>(output.shape[output.shape.size() - 2]);
  const int width = static_cast<int>(output.shape.back());
  Segmentation found;
  if (exported_.output_op == OutputOp::kArgmax) {
    if (with_confidence) {
      throw Error(
          "the export gives labels only (output_op argmax), without confidence; export the model "
          "with --output_op confidence");
    }
    found.labels = cv::Mat(height, width, CV_32S, const_cast<int*>(output.labels.data())).clone();
  } else if (exported_.output_op == OutputOp::kConfidence) {
    auto* values = const_cast<float*>(output.scores.data());
    const auto plane = static_cast<ptrdiff_t>(height) * width;
    cv::Mat(height, width, CV_32F, values).convertTo(found.labels, CV_32S);
    found.confidence = cv::Mat(height, width, CV_32F, values + plane).clone();
  } else {
    found = most_likely(output.scores.data(), static_cast<int>(output.shape[1]), height, width,
                        with_confidence && exported_.output_op == OutputOp::kNone);
  }
  const Transforms& transforms = exported_.transforms;
  return {transforms.restored(found.labels, size),
          with_confidence ? transforms.restored(found.confidence, size) : cv::Mat()};
}

}  // namespace liteseg
