// libdatachannel as OBS uses it: order of sections and formats as its WHIP output has them.
// Arguments: the WHIP address, and the kinds in order, such as audio,video.
import rtc from "node-datachannel";
import { play, post } from "./media.js";

const [url, kinds] = process.argv.slice(2);
const H264 = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";
const peer = new rtc.PeerConnection("publisher", { iceServers: [], disableAutoNegotiation: true });
const tracks = {};
kinds.split(",").forEach((kind, index) => {
  const media = new (kind === "audio" ? rtc.Audio : rtc.Video)(String(index), "SendOnly");
  if (kind === "audio") media.addOpusCodec(111);
  else media.addH264Codec(96, H264);
  media.addSSRC(kind === "audio" ? 1 : 2, "obs", "stream", `${kind}-track`);
  tracks[kind] = peer.addTrack(media);
});

peer.onGatheringStateChange(async (state) => {
  if (state !== "complete") return;
  peer.setRemoteDescription(await post(url, peer.localDescription().sdp), "answer");
});
peer.onStateChange((state) => {
  if (state !== "connected") return;
  const send = (kind) => tracks[kind] && ((bytes) => tracks[kind].sendMessageBinary(bytes));
  play(send("video"), send("audio"));
});
peer.setLocalDescription("offer");
