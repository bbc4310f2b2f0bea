//! The OpenH264 encoder behind safe methods: the only `unsafe` code of this crate.
//!
//! The `openh264` crate's own encoder fixes one temporal layer and caps the bitrate at its first value; a call needs
//! both at run time, so this file drives the C interface itself. It knows settings and bytes, not frames and times.
//! Decoding uses the safe wrapper.
#![expect(unsafe_code, reason = "the C interface of OpenH264; every block says why it is sound")]

use std::ffi::{c_int, c_void};
use std::ptr::{from_mut, null_mut};

use openh264_sys2 as sys;

use super::VideoError;

/// What to tell OpenH264 when it starts. Ranges are the caller's to check.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) fps: f32,
    pub(super) bitrate: u32,
    /// Frames from one keyframe to the next, a multiple of `2^(temporal_layers - 1)`; 0 for never.
    pub(super) keyframe_interval: u32,
    pub(super) temporal_layers: u8,
    /// 0 for one slice per picture.
    pub(super) slice_bytes_max: u32,
    pub(super) frame_skip: bool,
}

/// One encoded access unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) data: Vec<u8>,
    pub(super) keyframe: bool,
    pub(super) temporal_layer: u8,
}

/// One encoder instance; initialised for its whole life.
pub(super) struct Encoder {
    /// Non-null, made by WelsCreateSVCEncoder, destroyed once in `drop`.
    raw: *mut sys::ISVCEncoder,
    /// Boxed: 6 kB that OpenH264 fills on every frame.
    info: Box<sys::SFrameBSInfo>,
}

// SAFETY: OpenH264 keeps all state of an encoder behind its pointer, uses no thread-local storage, and with
// iMultipleThreadIdc = 1 starts no thread. The pointer is owned here alone, so moving it to another thread moves the
// only access to it.
unsafe impl Send for Encoder {}

impl Encoder {
    /// Creates and initialises.
    pub(super) fn new(setup: &Setup) -> Result<Encoder, VideoError> {
        let mut raw: *mut sys::ISVCEncoder = null_mut();
        // SAFETY: `raw` is a valid place for the pointer the function writes.
        let code = unsafe { sys::source::APILoader::WelsCreateSVCEncoder(from_mut(&mut raw)) };
        check("creating the encoder", code)?;
        if raw.is_null() {
            return Err(VideoError::Codec { operation: "creating the encoder", code: -1 });
        }
        let encoder = Encoder { raw, info: Box::default() };
        // First of all: starting would print a warning about a choice made on purpose (no skipped frames).
        encoder.set("silencing the log", sys::ENCODER_OPTION_TRACE_LEVEL, &mut { sys::WELS_LOG_QUIET })?;
        let mut params = sys::SEncParamExt::default();
        let defaults = method(encoder.table().GetDefaultParams)?;
        // SAFETY: `raw` is a live encoder and `params` a valid place for the struct.
        check("reading the defaults", unsafe { defaults(encoder.raw, &raw mut params) })?;
        fill(&mut params, setup);
        let initialize = method(encoder.table().InitializeExt)?;
        // SAFETY: `raw` is a live encoder; `params` is fully initialised and only read during the call.
        check("starting the encoder", unsafe { initialize(encoder.raw, &raw const params) })?;
        Ok(encoder)
    }

    /// Encodes one picture of the size given at the start; `None` if the rate control skipped it.
    ///
    /// `planes` are Y, U and V without padding; `millis` is the picture's time.
    pub(super) fn encode(
        &mut self,
        planes: [&[u8]; 3],
        width: u32,
        height: u32,
        millis: i64,
    ) -> Result<Option<Unit>, VideoError> {
        let (luma, chroma) = (width as usize * height as usize, width as usize * height as usize / 4);
        assert!(
            planes[0].len() == luma && planes[1].len() == chroma && planes[2].len() == chroma,
            "planes and size differ"
        );
        let (stride, half) = (width as c_int, width as c_int / 2);
        let [y, u, v] = planes.map(|plane| plane.as_ptr().cast_mut());
        let source = sys::SSourcePicture {
            iColorFormat: sys::videoFormatI420,
            iStride: [stride, half, half, 0],
            pData: [y, u, v, null_mut()],
            iPicWidth: width as c_int,
            iPicHeight: height as c_int,
            uiTimeStamp: millis,
            bPsnrY: false,
            bPsnrU: false,
            bPsnrV: false,
        };
        let encode = method(self.table().EncodeFrame)?;
        // SAFETY: `raw` is live and initialised. `source` points at three planes that live through the call and, as the
        // assertion proved, hold stride times height bytes; OpenH264 copies from them and never writes (its
        // preprocessor takes them as `const` sources). `info` is a valid place for the result.
        let code = unsafe { encode(self.raw, &raw const source, &raw mut *self.info) };
        check("encoding", code)?;
        Ok(self.unit())
    }

    /// Makes the next picture a keyframe.
    pub(super) fn force_keyframe(&mut self) -> Result<(), VideoError> {
        let force = method(self.table().ForceIntraFrame)?;
        // SAFETY: `raw` is live and initialised; the call only sets a flag.
        check("forcing a keyframe", unsafe { force(self.raw, true) })
    }

    /// Changes the target bitrate, bits/s, up or down.
    pub(super) fn set_bitrate(&mut self, bitrate: u32) -> Result<(), VideoError> {
        let mut info = sys::SBitrateInfo { iLayer: sys::SPATIAL_LAYER_ALL, iBitrate: bitrate as c_int };
        self.set("changing the bitrate", sys::ENCODER_OPTION_BITRATE, &mut info)
    }

    /// Changes the expected frame rate, pictures/s.
    pub(super) fn set_fps(&mut self, mut fps: f32) -> Result<(), VideoError> {
        self.set("changing the frame rate", sys::ENCODER_OPTION_FRAME_RATE, &mut fps)
    }

    /// `value` must have the type that OpenH264 documents for `option`; the private callers above see to it.
    fn set<T>(
        &self,
        operation: &'static str,
        option: sys::ENCODER_OPTION,
        value: &mut T,
    ) -> Result<(), VideoError> {
        let set = method(self.table().SetOption)?;
        // SAFETY: `raw` is live; `value` outlives the call and is of the option's type (TRACE_LEVEL: int, BITRATE:
        // SBitrateInfo, FRAME_RATE: float), which OpenH264 reads at once and does not keep.
        check(operation, unsafe { set(self.raw, option, from_mut(value).cast::<c_void>()) })
    }

    fn unit(&self) -> Option<Unit> {
        let info = &*self.info;
        if info.eFrameType == sys::videoFrameTypeSkip || info.eFrameType == sys::videoFrameTypeInvalid {
            return None;
        }
        let layers = usize::try_from(info.iLayerNum).unwrap_or(0).min(info.sLayerInfo.len());
        let mut data = Vec::with_capacity(usize::try_from(info.iFrameSizeInBytes).unwrap_or(0));
        let mut temporal_layer = 0;
        for layer in &info.sLayerInfo[..layers] {
            let count = usize::try_from(layer.iNalCount).unwrap_or(0);
            if count == 0 || layer.pNalLengthInByte.is_null() || layer.pBsBuf.is_null() {
                continue;
            }
            // SAFETY: after a successful encode, `pNalLengthInByte` points at `iNalCount` lengths inside the encoder,
            // untouched until the next call on it, which needs `&mut self`.
            let lengths = unsafe { std::slice::from_raw_parts(layer.pNalLengthInByte, count) };
            let total: usize = lengths.iter().map(|&length| usize::try_from(length).unwrap_or(0)).sum();
            // SAFETY: the units of a layer lie one after the other from `pBsBuf`, together as long as their lengths.
            data.extend_from_slice(unsafe { std::slice::from_raw_parts(layer.pBsBuf, total) });
            if c_int::from(layer.uiLayerType) == sys::VIDEO_CODING_LAYER as c_int {
                temporal_layer = layer.uiTemporalId;
            }
        }
        let keyframe = info.eFrameType == sys::videoFrameTypeIDR;
        (!data.is_empty()).then_some(Unit { data, keyframe, temporal_layer })
    }

    fn table(&self) -> &sys::ISVCEncoderVtbl {
        // SAFETY: a live `ISVCEncoder` is a pointer to a constant table of functions, valid as long as the library.
        unsafe { &**self.raw }
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        if let Some(uninitialize) = self.table().Uninitialize {
            // SAFETY: `raw` is live; uninitialising one that never started is documented as harmless.
            unsafe { uninitialize(self.raw) };
        }
        // SAFETY: made by WelsCreateSVCEncoder, destroyed here and nowhere else.
        unsafe { sys::source::APILoader::WelsDestroySVCEncoder(self.raw) };
    }
}

fn fill(params: &mut sys::SEncParamExt, setup: &Setup) {
    let (width, height, bitrate) = (setup.width as c_int, setup.height as c_int, setup.bitrate as c_int);
    params.iUsageType = sys::CAMERA_VIDEO_REAL_TIME;
    params.iPicWidth = width;
    params.iPicHeight = height;
    params.iTargetBitrate = bitrate;
    // No cap, here and per layer: a cap would be the first bitrate, and a later rise would be refused.
    params.iMaxBitrate = UNSPECIFIED_BIT_RATE;
    params.iRCMode = sys::RC_BITRATE_MODE;
    params.fMaxFrameRate = setup.fps;
    params.iTemporalLayerNum = c_int::from(setup.temporal_layers);
    params.iSpatialLayerNum = 1;
    params.iComplexityMode = sys::LOW_COMPLEXITY;
    params.uiIntraPeriod = setup.keyframe_interval;
    params.eSpsPpsIdStrategy = sys::CONSTANT_ID;
    params.bEnableFrameSkip = setup.frame_skip;
    params.iMultipleThreadIdc = 1;
    params.bEnableSceneChangeDetect = true;
    params.bEnableBackgroundDetection = true;
    params.bEnableAdaptiveQuant = true;
    params.bEnableLongTermReference = false;
    params.bEnableDenoise = false;
    let layer = &mut params.sSpatialLayers[0];
    layer.iVideoWidth = width;
    layer.iVideoHeight = height;
    layer.fFrameRate = setup.fps;
    layer.iSpatialBitrate = bitrate;
    layer.iMaxSpatialBitrate = UNSPECIFIED_BIT_RATE;
    // Constrained Baseline: what every decoder reads; there are no B frames in it.
    layer.uiProfileIdc = sys::PRO_BASELINE;
    if setup.slice_bytes_max > 0 {
        params.uiMaxNalSize = setup.slice_bytes_max;
        layer.sSliceArgument.uiSliceMode = sys::SM_SIZELIMITED_SLICE;
        layer.sSliceArgument.uiSliceSizeConstraint = setup.slice_bytes_max;
    } else {
        layer.sSliceArgument.uiSliceMode = sys::SM_SINGLE_SLICE;
        layer.sSliceArgument.uiSliceNum = 1;
    }
}

/// OpenH264's word for "no limit".
const UNSPECIFIED_BIT_RATE: c_int = 0;

/// A function of OpenH264's table; the library fills all of them.
fn method<F>(function: Option<F>) -> Result<F, VideoError> {
    function.ok_or(VideoError::Codec { operation: "calling OpenH264", code: -1 })
}

fn check(operation: &'static str, code: c_int) -> Result<(), VideoError> {
    if code == 0 { Ok(()) } else { Err(VideoError::Codec { operation, code: i64::from(code) }) }
}

/// Whether OpenH264 was built with its assembler code, which is about 2.5 times faster.
///
/// Its build falls back to plain C++ without a word when `nasm` is missing. This asks OpenH264's own detection of CPU
/// features: it is compiled to return zero in the C++ build, and finds at least SSE2 (every x86-64) or NEON (every
/// 64-bit ARM) otherwise.
pub fn assembler_build() -> bool {
    /// MMX, SSE and whatever else; C++ builds have none.
    const NONE: u32 = 0;
    let mut cores: c_int = 0;
    // SAFETY: the function has this signature in OpenH264's codec/common/inc/cpu.h and writes one int at most.
    unsafe { wels_cpu_feature_detect(&raw mut cores) != NONE }
}

unsafe extern "C" {
    #[link_name = "WelsCPUFeatureDetect"]
    fn wels_cpu_feature_detect(cores: *mut c_int) -> u32;
}
