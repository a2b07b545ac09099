// What went wrong, in the parts PostgreSQL reports it in. Plain data: it crosses every floor.
#pragma once

#include <string>

namespace zdm::core {

struct Failure {
    std::string sqlstate;  // 5 characters, see sqlstate.hpp
    std::string message;
    std::string detail;
    std::string hint;
    std::string context;
};

}  // namespace zdm::core
