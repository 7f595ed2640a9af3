# What the compiler and the linker have against overwritten stacks, buffers and tables of addresses. Not for sanitizers:
# they check the same, and do not see what the checked library functions of _FORTIFY_SOURCE do.
include(CheckCXXCompilerFlag)
include(CheckCXXSourceCompiles)
include(CheckLinkerFlag)

set(onnxfold_hardened_compiling "")
set(onnxfold_hardened_linking "")

if(NOT CMAKE_CXX_FLAGS MATCHES "-fsanitize" AND NOT MSVC)
  check_cxx_compiler_flag(-fstack-protector-strong ONNXFOLD_HAS_STACK_PROTECTOR)
  if(ONNXFOLD_HAS_STACK_PROTECTOR)
    list(APPEND onnxfold_hardened_compiling -fstack-protector-strong)
  endif()

  # Level 3 is known to compilers of 2022 and later; without optimization, libraries warn of any level.
  foreach(level 3 2)
    set(fortify "-Werror -O2 -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=${level}")
    set(CMAKE_REQUIRED_FLAGS "${fortify}")
    check_cxx_source_compiles("#include <cstring>\nint main() { return std::strlen(\"\"); }" ONNXFOLD_HAS_FORTIFY_${level})
    unset(CMAKE_REQUIRED_FLAGS)
    if(ONNXFOLD_HAS_FORTIFY_${level})
      list(APPEND onnxfold_hardened_compiling
        "$<$<NOT:$<CONFIG:Debug>>:-U_FORTIFY_SOURCE;-D_FORTIFY_SOURCE=${level}>")
      break()
    endif()
  endforeach()

  foreach(option relro now)
    check_linker_flag(CXX "LINKER:-z,${option}" ONNXFOLD_HAS_LINKER_${option})
    if(ONNXFOLD_HAS_LINKER_${option})
      list(APPEND onnxfold_hardened_linking "LINKER:-z,${option}")
    endif()
  endforeach()
endif()

function(onnxfold_harden target)
  target_compile_options(${target} PRIVATE ${onnxfold_hardened_compiling})
  target_link_options(${target} PRIVATE ${onnxfold_hardened_linking})
endfunction()
