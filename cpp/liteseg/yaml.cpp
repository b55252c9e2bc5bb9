#include "liteseg/yaml.h"

#include <yaml-cpp/anchor.h>
#include <yaml-cpp/eventhandler.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <vector>

#include "liteseg/error.h"

namespace liteseg {
namespace {

// Those of liteseg_plugin/system/text.py.
constexpr size_t kMostBytes = 1 << 20;
constexpr size_t kMostNodes = 50'000;
constexpr size_t kMostCharacters = 10'000;
constexpr size_t kMostLevels = 100;

/// Counts values before any is built: a few aliases can stand for billions.
class Bounds : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t anchor) override { add(anchor, 1); }
  void OnAlias(const YAML::Mark&, YAML::anchor_t anchor) override {
    const auto found = sizes_.find(anchor);
    if (found == sizes_.end()) {
      throw Error("it has an alias inside its own anchor");
    }
    add(YAML::NullAnchor, found->second);
  }
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t anchor,
                const std::string& value) override {
    if (value.size() > kMostCharacters) {
      throw Error("it has a value of " + std::to_string(value.size()) + " characters");
    }
    add(anchor, 1);
  }
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(anchor);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(anchor);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Open {
    YAML::anchor_t anchor;
    size_t size;
  };

  void open(YAML::anchor_t anchor) {
    if (open_.size() == kMostLevels) {
      throw Error("it has more than " + std::to_string(kMostLevels) + " levels");
    }
    open_.push_back({anchor, 1});
  }

  void close() {
    const Open closed = open_.back();
    open_.pop_back();
    add(closed.anchor, closed.size);
  }

  void add(YAML::anchor_t anchor, size_t size) {
    if (anchor != YAML::NullAnchor) {
      sizes_[anchor] = size;
    }
    size_t total = size;
    if (!open_.empty()) {
      total = open_.back().size += size;
    }
    if (total > kMostNodes) {
      throw Error("it has more than " + std::to_string(kMostNodes) +
                  " values, those that aliases stand for included");
    }
  }

  std::vector<Open> open_;
  std::map<YAML::anchor_t, size_t> sizes_;
};

std::string shown(const YAML::Node& node) {
  return node.IsScalar() ? "'" + printable(node.Scalar().substr(0, 80)) + "'" : "a list or mapping";
}

}  // namespace

YAML::Node read_yaml(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(kMostBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  if (file.bad() || text.empty()) {
    throw Error(printable(path.string()) + " is empty, or cannot be read");
  }
  if (text.size() > kMostBytes) {
    throw Error(printable(path.string()) + " is too large: a YAML file here has up to " +
                std::to_string(kMostBytes) + " bytes");
  }
  try {
    Bounds bounds;
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    if (!parser.HandleNextDocument(bounds) || parser.HandleNextDocument(bounds)) {
      throw Error("it has no document, or several");
    }
    return YAML::Load(text);
  } catch (const std::exception& error) {
    throw Error(printable(path.string()) + " is not valid YAML: " + last_line(error.what()));
  }
}

Section::Section(const YAML::Node& node, std::string name, std::initializer_list<const char*> known)
    : node_(node), name_(std::move(name)) {
  if (!node_.IsMap()) {
    throw Error(name_ + " must be a mapping");
  }
  std::set<std::string> found;
  for (const auto& entry : node_) {
    const std::string key = entry.first.IsScalar() ? entry.first.Scalar() : "";
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      std::string names;
      for (const char* each : known) {
        names += names.empty() ? each : std::string(", ") + each;
      }
      throw Error(name_ + " has the key " + shown(entry.first) +
                  ", which this program does not know; it knows " + names);
    }
    if (!found.insert(key).second) {
      throw Error(name_ + " has the key '" + key + "' twice");
    }
  }
}

bool Section::has(const char* key) const {
  const YAML::Node value = node_[key];
  return value.IsDefined() && !value.IsNull();
}

YAML::Node Section::operator[](const char* key) const {
  if (!has(key)) {
    throw Error(name_ + " lacks the key '" + key + "'");
  }
  return node_[key];
}

std::string Section::text(const char* key) const {
  const YAML::Node value = (*this)[key];
  if (!value.IsScalar()) {
    refuse(key, "must be text");
  }
  return value.Scalar();
}

double Section::number(const char* key, double fallback) const {
  try {
    return has(key) ? to_number(node_[key]) : fallback;
  } catch (const YAML::Exception&) {
    refuse(key, "must be a number");
  }
}

int Section::integer(const char* key, int fallback) const {
  try {
    const int64_t value = has(key) ? to_integer(node_[key]) : fallback;
    if (value == static_cast<int>(value)) {
      return static_cast<int>(value);
    }
  } catch (const YAML::Exception&) {
  }
  refuse(key, "must be a whole number");
}

bool Section::flag(const char* key, bool fallback) const {
  if (!has(key)) {
    return fallback;
  }
  bool value = false;
  const YAML::Node node = node_[key];
  // `y` and `n` are text for Python's reader.
  if (!node.IsScalar() || node.Scalar().size() < 2 || !YAML::convert<bool>::decode(node, value)) {
    refuse(key, "must be true or false");
  }
  return value;
}

void Section::refuse(const char* key, const std::string& what) const {
  throw Error(name_ + " has '" + key + ": " + shown(node_[key]) + "', which " + what);
}

double to_number(const YAML::Node& node) {
  if (node.Tag() == "!") {  // quoted: text
    throw YAML::TypedBadConversion<double>(node.Mark());
  }
  const double value = node.as<double>();
  if (!std::isfinite(value)) {
    throw YAML::TypedBadConversion<double>(node.Mark());
  }
  return value;
}

int64_t to_integer(const YAML::Node& node) {
  if (node.Tag() == "!") {
    throw YAML::TypedBadConversion<int64_t>(node.Mark());
  }
  return node.as<int64_t>();
}

}  // namespace liteseg
