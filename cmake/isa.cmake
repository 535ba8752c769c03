# Sources under csrc/cpu/isa are compiled once for each instruction set; csrc/cpu/isa.h chooses one when the program runs.
#
# Each compilation sees GAF_ISA (avx512, avx2 or baseline) and puts its functions into namespace gaf::cpu::GAF_ISA. Such a source may
# use only always-inlined templates and raw pointers: any other inline function (std::vector, std::sort) becomes a weak symbol, the linker
# keeps one of the copies, and an old processor may be handed the AVX-512 one. scripts/check_isa_symbols.py looks for such symbols.
#
# Doubles (GAF_FLOAT64, namespace float64) are compiled once, for every processor: csrc/cpu/isa.h says why.
function(gaf_add_isa_sources target)
  if(NOT ARGN)
    return()
  endif()
  set(isas baseline)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
    list(APPEND isas avx2 avx512)
    set(flags_avx2 -mavx2 -mfma -mtune=haswell)
    set(flags_avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mprefer-vector-width=512)
  endif()
  foreach(isa IN LISTS isas)
    set(objects ${target}_${isa})
    add_library(${objects} OBJECT ${ARGN})
    target_link_libraries(${objects} PRIVATE gaf_flags)
    target_compile_definitions(${objects} PRIVATE GAF_ISA=${isa})
    # gcc 12 warns about its own AVX-512 header (uninitialized).
    target_compile_options(${objects} PRIVATE ${flags_${isa}} -Wno-psabi -Wno-maybe-uninitialized -Wno-uninitialized)
  endforeach()
  list(FILTER ARGN EXCLUDE REGEX "/mesh_band\\.cpp$")  # computes in double whatever the inputs are
  add_library(${target}_float64 OBJECT ${ARGN})
  target_link_libraries(${target}_float64 PRIVATE gaf_flags)
  target_compile_definitions(${target}_float64 PRIVATE GAF_ISA=float64 GAF_FLOAT64)
  target_compile_options(${target}_float64 PRIVATE -Wno-psabi)
  set_target_properties(${target}_float64 PROPERTIES GAF_COLD ON)
  list(APPEND isas float64)
  foreach(isa IN LISTS isas)
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:${target}_${isa}>)
  endforeach()
  set(GAF_ISAS ${isas} PARENT_SCOPE)
endfunction()
