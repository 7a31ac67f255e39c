# Builds the agent NAME.wasm from its sources.
function(persist_agent name)
  add_executable(${name} ${ARGN})
  target_link_libraries(${name} PRIVATE persist::persist)
  set_target_properties(${name} PROPERTIES SUFFIX .wasm)
endfunction()
