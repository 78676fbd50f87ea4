//! The known fields of the gateway's bodies, for the OpenAPI document alone.
//!
//! Nothing is ever parsed into these: the bridge passes bodies on as they came, so a field missing here is lost to
//! no caller. What the gateway is known or feared to spell in two ways has a type of `spelled`; what it may leave empty may
//! be null. That every object may hold more is added to all of them at once, where the document is made.

#![expect(dead_code, reason = "read by the OpenAPI document alone")]
#![expect(clippy::struct_field_names, reason = "the names are the gateway's own")]
#![expect(clippy::zero_sized_map_values, reason = "the types of values are read for their schemas alone")]

use std::collections::BTreeMap;

use utoipa::ToSchema;

use super::spelled::{ConfigValue, Price, SpelledCount, SpelledFlag, SpelledId, SpelledTime};

/// The reply to `getconfig`.
#[derive(Debug, ToSchema)]
#[schema(examples(json!({"Config": {"ticket_limit": "10"}})))]
pub struct GetConfig {
    /// Keys and values as the instance's administrators set them.
    #[schema(rename = "Config")]
    pub config: BTreeMap<String, ConfigValue>,
}

/// The reply to `getdeposit`.
#[derive(Debug, ToSchema)]
#[schema(examples(json!({"Deposit": {"Price": 2.00}})))]
pub struct GetDeposit {
    /// The deposit.
    #[schema(rename = "Deposit")]
    pub deposit: Deposit,
}

/// What is charged for a cup or a bottle and given back with it.
#[derive(Debug, ToSchema)]
pub struct Deposit {
    /// Its price.
    #[schema(rename = "Price")]
    pub price: Price,
}

/// The reply to `getlicense`.
#[derive(Debug, ToSchema)]
#[schema(examples(json!({"License": {
    "Name": "Demo festival", "LicenseKey": "XXXX-XXXX", "Active": "1", "Type": "festival", "DeviceLimit": "0",
    "TicketLimit": "0", "ProductLimit": "0", "PaymentLimit": "0", "POSLimit": "20",
    "Created": "2026-01-01 00:00:00", "Expires": null}})))]
pub struct GetLicense {
    /// The licence.
    #[schema(rename = "License")]
    pub license: License,
}

/// A ConcertPOS licence. Limits are strings; `"0"` is no limit.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "PascalCase")]
pub struct License {
    /// Whom it is made out to.
    pub name: String,
    /// The key itself.
    pub license_key: String,
    /// `"1"` while it is active.
    #[schema(examples("1"))]
    pub active: String,
    /// Its kind.
    #[schema(rename = "Type")]
    pub kind: String,
    /// How many devices.
    pub device_limit: String,
    /// How many tickets.
    pub ticket_limit: String,
    /// How many products.
    pub product_limit: String,
    /// How many payment methods.
    pub payment_limit: String,
    /// How many points of sale.
    #[schema(rename = "POSLimit")]
    pub pos_limit: String,
    /// When it was made out.
    #[schema(required = false)]
    pub created: SpelledTime,
    /// When it ends; `null` is never.
    #[schema(required = false)]
    pub expires: SpelledTime,
}

/// The reply to `listpos`.
#[derive(Debug, ToSchema)]
#[schema(examples(json!({"POS": [
    {"ID": 1, "PointOfSale": "Main bar", "enabled": 1, "special": 0, "admin": 0, "password": 0}]})))]
pub struct ListPos {
    /// The points of sale.
    #[schema(rename = "POS")]
    pub pos: Vec<PointOfSale>,
}

/// A place where something is sold.
#[derive(Debug, ToSchema)]
pub struct PointOfSale {
    /// Its id.
    #[schema(rename = "ID", examples(1))]
    pub id: i64,
    /// Its name.
    #[schema(rename = "PointOfSale", examples("Main bar"))]
    pub point_of_sale: String,
    /// Whether it sells at present.
    #[schema(required = false)]
    pub enabled: SpelledFlag,
    /// Whether it is a special one.
    #[schema(required = false)]
    pub special: SpelledFlag,
    /// Whether it is for administrators.
    #[schema(required = false)]
    pub admin: SpelledFlag,
    /// Whether a password is needed.
    #[schema(required = false)]
    pub password: SpelledFlag,
}

/// The reply to `listpm`.
#[derive(Debug, ToSchema)]
#[schema(examples(json!({"PaymentMethods": [
    {"ID": 1, "Payment": "Cash", "color": "#28a745"}]})))]
pub struct ListPm {
    /// The payment methods.
    #[schema(rename = "PaymentMethods")]
    pub payment_methods: Vec<PaymentMethod>,
}

/// A way to pay.
#[derive(Debug, ToSchema)]
pub struct PaymentMethod {
    /// Its id.
    #[schema(rename = "ID", examples(1))]
    pub id: i64,
    /// Its name.
    #[schema(rename = "Payment", examples("Cash"))]
    pub payment: String,
    /// The colour of its button.
    #[schema(examples("#28a745"))]
    pub color: Option<String>,
}

/// The reply to `listproducts`.
#[derive(Debug, ToSchema)]
#[schema(examples(json!({"Products": [
    {"ID": 1, "ProductName": "Beer 0.5 l", "Price": 4.50, "Amount": 0, "Deposit": 1, "CrewBlocked": 0}]})))]
pub struct ListProducts {
    /// The products.
    #[schema(rename = "Products")]
    pub products: Vec<Product>,
}

/// Something that is sold.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "PascalCase")]
pub struct Product {
    /// Its id.
    #[schema(rename = "ID", examples(1))]
    pub id: i64,
    /// Its name.
    #[schema(examples("Beer 0.5 l"))]
    pub product_name: String,
    /// Its price.
    pub price: Price,
    /// How many are in the basket: 0 in a list.
    #[schema(required = false)]
    pub amount: SpelledCount,
    /// Whether a deposit is charged with it.
    #[schema(required = false)]
    pub deposit: SpelledFlag,
    /// Whether crew members cannot have it.
    #[schema(required = false)]
    pub crew_blocked: SpelledFlag,
}

/// The reply to `version`.
#[derive(Debug, ToSchema)]
#[schema(examples(json!({"Version": "2.4.1"})))]
pub struct Version {
    /// The gateway's version.
    #[schema(rename = "Version")]
    pub version: String,
}

/// The reply to `getstatus`.
#[derive(Debug, ToSchema)]
#[schema(examples(json!({"status": "success", "message": "All systems operational"})))]
pub struct GetStatus {
    /// `success` while all is well.
    pub status: String,
    /// The same for people.
    pub message: String,
}

/// The reply to `listtransactions`.
#[derive(Debug, ToSchema)]
#[schema(examples(json!({"Count": 1, "Transactions": [
    {"ID": 4711, "Payment_ID": 1, "PointOfSaleID": 1, "Product_ID": 1, "AmountProduct": 2, "AmountMoney": 9.00,
     "timestamp": "2026-06-08 02:47:58", "hash": "9b71d224bd62f378", "Note": null}]})))]
pub struct ListTransactions {
    /// How many there are.
    #[schema(rename = "Count")]
    pub count: SpelledCount,
    /// The transactions, newest first.
    #[schema(rename = "Transactions")]
    pub transactions: Vec<Transaction>,
}

/// One product of one sale, as it was booked.
#[derive(Debug, ToSchema)]
pub struct Transaction {
    /// Its id.
    #[schema(rename = "ID", examples(4711))]
    pub id: i64,
    /// How it was paid.
    #[schema(rename = "Payment_ID", examples(1))]
    pub payment_id: i64,
    /// Where it was sold.
    #[schema(rename = "PointOfSaleID", examples(1))]
    pub point_of_sale_id: i64,
    /// What was sold.
    #[schema(rename = "Product_ID", examples(1))]
    pub product_id: i64,
    /// How many.
    #[schema(rename = "AmountProduct")]
    pub amount_product: SpelledCount,
    /// For how much; negative for a returned deposit.
    #[schema(rename = "AmountMoney")]
    pub amount_money: Price,
    /// When.
    pub timestamp: SpelledTime,
    /// The gateway's own mark, 128 hexadecimal digits.
    pub hash: String,
    /// A remark.
    #[schema(rename = "Note")]
    pub note: Option<String>,
}

/// A sale.
#[derive(Debug, ToSchema)]
#[schema(examples(json!({"PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 2}]})))]
pub struct PayItems {
    /// The id of the payment method.
    #[schema(rename = "PaymentMethod")]
    pub payment_method: SpelledId,
    /// What is sold. At least one has an `Amount` above 0, and none is given twice.
    #[schema(rename = "Products", min_items = 1, max_items = 1000)]
    pub products: Vec<SoldProduct>,
    /// The password of the point of sale; `X-POS-Password` does the same.
    #[schema(rename = "posPassword", required = false, nullable = false)]
    pub pos_password: Option<String>,
}

/// How many of a product are sold.
#[derive(Debug, ToSchema)]
pub struct SoldProduct {
    /// The product's id.
    #[schema(rename = "ID", minimum = 0, maximum = 9_007_199_254_740_991_i64, examples(1))]
    pub id: i64,
    /// How many; a product with 0 is not sold.
    #[schema(rename = "Amount", minimum = 0, maximum = 9_007_199_254_740_991_i64, examples(2))]
    pub amount: i64,
}

/// The reply to `payitems`.
#[derive(Debug, ToSchema)]
#[schema(examples(json!({"Items": 1})))]
pub struct PayItem {
    /// How many products were booked.
    #[schema(rename = "Items")]
    pub items: SpelledCount,
}

/// What is known of a device.
#[derive(Debug, ToSchema)]
#[schema(examples(json!({"workplace": 1})))]
pub struct RegisterDevice {
    /// The id of the point of sale it stands at.
    #[schema(required = false)]
    pub workplace: SpelledId,
}

/// The reply to `registerdevice`: not documented by the vendor, and passed on as it comes.
#[derive(Debug, ToSchema)]
#[schema(examples(json!({})))]
pub struct RegisteredDevice {}

/// A password to be checked.
#[derive(Debug, ToSchema)]
#[schema(examples(json!({"password": "a-pos-password"})))]
pub struct VerifyAuth {
    /// As it was typed.
    pub password: String,
}

/// The reply to `verifyauth`.
#[derive(Debug, ToSchema)]
#[schema(examples(json!({"success": true, "password": "a-pos-password"})))]
pub struct VerifiedAuth {
    /// Whether the password is right.
    pub success: bool,
    /// What later goes into `X-POS-Password`; null or absent where the password is wrong.
    #[schema(required = false)]
    pub password: Option<String>,
}

/// The parameters of a command, without its `api_key`.
#[derive(Debug, ToSchema)]
#[schema(examples(json!({})))]
pub struct RawParameters {}

/// The parameters of a reply, whatever they are.
#[derive(Debug, ToSchema)]
#[schema(examples(json!({"status": "success", "message": "All systems operational"})))]
pub struct RawReply {}
