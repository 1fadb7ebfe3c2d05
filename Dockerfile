# The controller: REST API, catalog, SSH to the hosts. The agents it deploys run on the hosts, not in here.
FROM node:20.19-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ make python3 libzstd-dev && rm -rf /var/lib/apt/lists/*
# The image has Node's headers: node-gyp need not fetch them.
ENV npm_config_nodedir=/usr/local
WORKDIR /staghorn
COPY package.json package-lock.json .npmrc ./
RUN npm ci
COPY . .
RUN npm run build && npm prune --omit=dev

FROM node:20.19-bookworm-slim
WORKDIR /staghorn
COPY --from=build /staghorn/package.json ./
COPY --from=build /staghorn/node_modules node_modules
COPY --from=build /staghorn/dist dist
COPY --from=build /staghorn/build/Release/staghorn.node build/Release/staghorn.node
COPY --from=build /staghorn/bin bin
COPY --from=build /staghorn/docs/errors.md docs/errors.md
VOLUME /var/lib/staghorn
EXPOSE 7411
# Hosts are reached with the ssh_config, keys and known_hosts mounted at /root/.ssh.
ENTRYPOINT ["/staghorn/bin/staghorn"]
CMD ["serve", "--listen", "0.0.0.0:7411", "--state-dir", "/var/lib/staghorn"]
