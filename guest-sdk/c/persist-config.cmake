include(${CMAKE_CURRENT_LIST_DIR}/persist-targets.cmake)
include(${CMAKE_CURRENT_LIST_DIR}/persist-agent.cmake)
