# GAF_CUDA: AUTO compiles csrc/cuda when nvcc is found, ON insists, OFF never does. Without .cu files (cuda_sources, set by the file that
# includes this one) there is nothing to compile.
#
# enable_language stands at file scope: in a function the variables that it sets (CMAKE_CUDA_*) would be lost.
set(GAF_CUDA_FOUND OFF)
if(GAF_CUDA STREQUAL "ON" AND NOT cuda_sources)
  message(WARNING "gafcore: GAF_CUDA=ON, but there are no sources in csrc/cuda: building for the CPU only")
elseif(NOT GAF_CUDA STREQUAL "OFF" AND cuda_sources)
  # One architecture unless asked for more: each costs 15 s of compile time. The code of 80 also runs on 86 and 89, its PTX everywhere later,
  # compiled once by the driver.
  if(NOT GAF_CUDA_ARCHITECTURES)
    set(GAF_CUDA_ARCHITECTURES 80)
    execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader OUTPUT_VARIABLE gaf_cards ERROR_QUIET RESULT_VARIABLE gaf_status)
    if(gaf_status EQUAL 0 AND gaf_cards MATCHES "([0-9]+)\\.([0-9]+)")
      set(GAF_CUDA_ARCHITECTURES "${CMAKE_MATCH_1}${CMAKE_MATCH_2}")
    endif()
  endif()
  set(CMAKE_CUDA_ARCHITECTURES "${GAF_CUDA_ARCHITECTURES}")  # before enable_language, which fills in a default otherwise
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    if(NOT DEFINED CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake before 3.26 does not know that nvcc has C++20
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
      set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
    endif()
    find_package(CUDAToolkit REQUIRED)
    set(GAF_CUDA_FOUND ON)
  elseif(GAF_CUDA STREQUAL "ON")
    message(FATAL_ERROR "GAF_CUDA=ON but no nvcc was found: put it on PATH, set CUDACXX, or use GAF_CUDA=OFF")
  else()
    message(STATUS "gafcore: no nvcc, building for the CPU only")
  endif()
endif()

# Sources of csrc/cuda as few translation units, because the headers of CUDA take longer than most files: two seconds each. The largest stay alone.
# (UNITY_BUILD would do it in CMake 3.31.) Names in anonymous namespaces must differ within a unit; a compiler says where they do not.
function(gaf_merge_cuda_sources result)
  set(merged_rasterization "")
  set(merged_other "")
  set(units "")
  foreach(source IN LISTS ARGN)
    if(source MATCHES "/(prim|photometric_loss)\\.cu$")
      list(APPEND units ${source})
    elseif(source MATCHES "/rasterization_[a-z_]*\\.cu$")
      string(APPEND merged_rasterization "#include \"${source}\"\n")
    else()
      string(APPEND merged_other "#include \"${source}\"\n")
    endif()
  endforeach()
  foreach(unit IN ITEMS rasterization other)
    set(file ${CMAKE_BINARY_DIR}/cuda/${unit}.cu)
    file(CONFIGURE OUTPUT ${file} CONTENT "${merged_${unit}}" @ONLY)  # is not touched where nothing changed
    list(APPEND units ${file})
  endforeach()
  set(${result} ${units} PARENT_SCOPE)
endfunction()

function(gaf_add_cuda_sources target)
  if(NOT GAF_CUDA_FOUND)
    target_sources(${target} PRIVATE ${CMAKE_SOURCE_DIR}/csrc/cuda/no_cuda.cpp)
    return()
  endif()
  set(CMAKE_CUDA_RUNTIME_LIBRARY Static)  # the module then loads on machines without a driver
  gaf_merge_cuda_sources(units ${ARGN})
  add_library(${target}_cuda OBJECT ${units})
  set_target_properties(${target} ${target}_cuda PROPERTIES CUDA_STANDARD 20 CUDA_ARCHITECTURES "${GAF_CUDA_ARCHITECTURES}")
  target_include_directories(${target}_cuda PRIVATE ${CMAKE_SOURCE_DIR}/csrc)
  target_compile_options(${target}_cuda PRIVATE -O3 -Wno-deprecated-gpu-targets $<$<BOOL:${GAF_WERROR}>:-Werror=all-warnings>)
  target_sources(${target} PRIVATE $<TARGET_OBJECTS:${target}_cuda>)
  target_compile_definitions(${target} PRIVATE GAF_WITH_CUDA)
  target_link_libraries(${target} PRIVATE CUDA::cudart_static)
endfunction()
