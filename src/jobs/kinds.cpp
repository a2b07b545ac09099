#include "jobs/kinds.hpp"

namespace zdm::jobs {

namespace {
constexpr int max_kinds = 16;
Kind kinds[max_kinds];
int kind_count = 0;
}  // namespace

void register_kind(const Kind& kind) {
    if (kind_count < max_kinds) {
        kinds[kind_count++] = kind;
    }
}

const Kind* find_kind(std::string_view name) {
    for (int i = 0; i < kind_count; ++i) {
        if (name == kinds[i].name) {
            return &kinds[i];
        }
    }
    return nullptr;
}

}  // namespace zdm::jobs
