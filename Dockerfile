# The graph on an official ROS image. From a checkout:
#   docker build -t act2goal .                                   CPU
#   docker build -t act2goal:gpu --target gpu .                  NVIDIA GPU, with TensorRT
#   docker run --rm -it --shm-size=1g act2goal                   the graph on the simulated arm
#   docker run --rm -it --net=host --ipc=host act2goal ros2 launch act2goal_ros bringup.launch.py sim:=false robot:=ur5e model:=/path/to/yours
# The default /dev/shm of 64 MB is too small for the nodes' shared memory (16 MB each): --shm-size or --ipc=host.
ARG ROS_DISTRO=kilted

FROM ros:${ROS_DISTRO}-ros-base AS cpu
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /ws

# Dependencies first: they change less often than the code.
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-venv libegl1 libgl1-mesa-dri \
 && rm -rf /var/lib/apt/lists/*
COPY package.xml src/act2goal_ros/package.xml
RUN apt-get update \
 && rosdep update --rosdistro "$ROS_DISTRO" \
 && rosdep install --from-paths src --ignore-src --rosdistro "$ROS_DISTRO" -y \
 && rm -rf /var/lib/apt/lists/*
# What rosdep does not know; NumPy stays the distribution's, which the message packages were compiled for.
COPY requirements/sim.txt requirements.txt
RUN python3 -m venv --system-site-packages .venv \
 && .venv/bin/pip install --no-cache-dir --no-deps -r requirements.txt

COPY . src/act2goal_ros
RUN source "/opt/ros/$ROS_DISTRO/setup.bash" \
 && source .venv/bin/activate \
 && python3 -m colcon build

ENTRYPOINT ["/bin/bash", "-c", "source /ws/install/setup.bash && exec \"$@\"", "--"]
CMD ["ros2", "launch", "act2goal_ros", "bringup.launch.py"]

FROM cpu AS gpu
ARG ONNXRUNTIME_VERSION=1.31.1
ARG TENSORRT_VERSION=10.16.1.11
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility,graphics
# Only the libraries: the driver comes from the host (NVIDIA Container Toolkit).
RUN .venv/bin/pip uninstall -y onnxruntime \
 && .venv/bin/pip install --no-cache-dir "onnxruntime-gpu[cuda,cudnn]==${ONNXRUNTIME_VERSION}" "tensorrt-cu12==${TENSORRT_VERSION}" "cuda-bindings==12.9.5"

# The last stage is what a plain `docker build` makes.
FROM cpu
