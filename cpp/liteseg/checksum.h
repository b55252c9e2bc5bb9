#pragma once

#include <yaml-cpp/yaml.h>

#include <filesystem>
#include <string>

namespace liteseg {

inline constexpr const char* kDeployFile = "deploy.yaml";

/// The SHA-256 of a file, in hexadecimal. Throws Error if it cannot be read.
std::string file_sha256(const std::filesystem::path& path);

/// The SHA-256 of what a `deploy.yaml` says, but for this one itself, as `deploy_sha256` of
/// liteseg_plugin/exported.py computes it. Values are read as Python's `yaml.safe_dump` writes
/// them; what a person wrote in other ways counts as edited.
std::string deploy_sha256(const YAML::Node& content);

}  // namespace liteseg
