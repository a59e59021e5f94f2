// werift, a stack in pure TypeScript. Arguments: the WHIP address, and the kinds in order.
import { MediaStreamTrack, RTCPeerConnection, RTCRtpCodecParameters } from "werift";
import { play, post } from "./media.js";

const [url, kinds] = process.argv.slice(2);
const h264 = new RTCRtpCodecParameters({
  mimeType: "video/H264",
  clockRate: 90000,
  payloadType: 96,
  rtcpFeedback: [{ type: "nack" }, { type: "nack", parameter: "pli" }],
  parameters: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
});
const opus = new RTCRtpCodecParameters({
  mimeType: "audio/opus",
  clockRate: 48000,
  channels: 2,
  payloadType: 111,
});
const peer = new RTCPeerConnection({
  iceServers: [],
  bundlePolicy: "max-bundle",
  codecs: { video: [h264], audio: [opus] },
});
const tracks = {};
for (const kind of kinds.split(",")) {
  tracks[kind] = new MediaStreamTrack({ kind });
  peer.addTransceiver(tracks[kind], { direction: "sendonly" });
}
await peer.setLocalDescription(await peer.createOffer());
while (peer.iceGatheringState !== "complete") await new Promise((done) => setTimeout(done, 20));
const sdp = await post(url, peer.localDescription.sdp);
peer.connectionStateChange.subscribe((state) => {
  if (state !== "connected") return;
  const send = (kind) => tracks[kind] && ((bytes) => tracks[kind].writeRtp(bytes));
  play(send("video"), send("audio"));
});
await peer.setRemoteDescription({ type: "answer", sdp });
