export const getStderr = () => ({ blockingWriteAndFlush: (bytes) => process.stderr.write(bytes) });
