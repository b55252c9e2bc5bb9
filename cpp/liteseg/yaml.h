#pragma once

#include <yaml-cpp/yaml.h>

#include <filesystem>
#include <initializer_list>
#include <string>

namespace liteseg {

/// Reads a YAML file within the bounds of Python's reader: bytes, values with aliases expanded,
/// characters of a value, levels. Throws Error.
YAML::Node read_yaml(const std::filesystem::path& path);

/// A mapping whose keys are all known: an unknown key would be misread, so it is an Error.
class Section {
 public:
  /// `name` is what errors call the mapping.
  Section(const YAML::Node& node, std::string name, std::initializer_list<const char*> known);

  bool has(const char* key) const;
  /// A value; a missing one is an Error.
  YAML::Node operator[](const char* key) const;

  std::string text(const char* key) const;
  double number(const char* key, double fallback) const;
  int integer(const char* key, int fallback) const;
  bool flag(const char* key, bool fallback) const;

  /// An Error about a key: its value, and what is wrong with it.
  [[noreturn]] void refuse(const char* key, const std::string& what) const;

 private:
  YAML::Node node_;
  std::string name_;
};

double to_number(const YAML::Node& node);    ///< throws YAML::Exception
int64_t to_integer(const YAML::Node& node);  ///< likewise

}  // namespace liteseg
